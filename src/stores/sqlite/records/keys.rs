//! The index of records: by image, token, slot, subject and workspace.
//!
//! The keys are in random order. If each upload wrote its own at once, it would write a page of the file for each of them,
//! and an upload would cost 39 us of CPU instead of 14 (measured with commits of 32 uploads). So new keys stay in memory,
//! with the ids of their records in a small table. When there are many, they are written in their order, a few in each
//! commit. What is read comes from both.

use std::{
    collections::{BTreeSet, HashSet},
    mem,
    ops::{Bound, RangeInclusive},
    sync::Arc,
};

use parking_lot::RwLock;
use policies::{ImageId, SubjectId, TokenId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use uuid::Uuid;

use super::rows::{IdText, digest};
use crate::stores::records::{RecordId, Replay};

/// How many keys stay in memory until they are written.
const MAX_NEW: usize = 32_768;

/// How many keys a commit writes at least, and how many for each one that it adds.
const MIN_WRITTEN: usize = 64;
const WRITTEN_PER_ADDED: usize = 4;

pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS upload_keys (
    hash INTEGER NOT NULL,
    is_listed INTEGER NOT NULL, -- 1 if the key is that of the holder, and the image exists
    id BLOB NOT NULL,
    PRIMARY KEY (hash, is_listed, id)
) STRICT, WITHOUT ROWID;
-- Records whose keys may not be written.
CREATE TABLE IF NOT EXISTS upload_unkeyed (id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// What a record is found by.
#[derive(Clone, Copy)]
pub(super) enum Lookup<'a> {
    Image(&'a ImageId),
    Token(&'a TokenId),
    Slot(&'a [u8; 32]),
    Subject(&'a SubjectId),
    Workspace(&'a WorkspaceId),
}

impl Lookup<'_> {
    /// Different values almost never have the same hash. Records that are found are compared, too.
    pub(super) fn hash(self) -> i64 {
        let (kind, value): (u8, &[u8]) = match self {
            Self::Image(id) => (0, id.as_str().as_bytes()),
            Self::Token(id) => (1, id.as_str().as_bytes()),
            Self::Slot(slot) => (2, slot),
            Self::Subject(id) => (3, id.as_str().as_bytes()),
            Self::Workspace(id) => (4, id.as_str().as_bytes()),
        };
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(&[kind]);
        context.update(value);
        let hash = context.finish();
        let first = hash.as_ref().first_chunk().copied();
        i64::from_le_bytes(first.unwrap_or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    hash: i64,
    id: RecordId,
    /// Whether it is that of the holder.
    is_holder: bool,
    /// Whether the image exists, too.
    is_listed: bool,
}

impl Key {
    fn range(hash: i64, first: Uuid, last: Uuid) -> RangeInclusive<Self> {
        let key = |id, flag| Self {
            hash,
            id: RecordId(id),
            is_holder: flag,
            is_listed: flag,
        };
        key(first, false)..=key(last, true)
    }

    /// This key, whether it is listed or not.
    fn same(&self) -> RangeInclusive<Self> {
        Self::range(self.hash, self.id.0, self.id.0)
    }
}

/// What a record is found by.
pub(super) struct Owner<'a> {
    pub(super) subject: &'a SubjectId,
    pub(super) workspace: Option<&'a WorkspaceId>,
    pub(super) image: Option<&'a ImageId>,
    pub(super) token: Option<&'a TokenId>,
    pub(super) replay: Option<&'a Replay>,
}

impl Owner<'_> {
    fn keys(&self, id: RecordId) -> impl Iterator<Item = Key> {
        let lookups = [
            (self.image.map(Lookup::Image), false),
            (self.token.map(Lookup::Token), false),
            (self.replay.map(|it| Lookup::Slot(&it.slot)), false),
            (
                Some(Lookup::Subject(self.subject)),
                self.workspace.is_none(),
            ),
            (self.workspace.map(Lookup::Workspace), true),
        ];
        let has_image = self.image.is_some();
        lookups.into_iter().filter_map(move |(lookup, is_holder)| {
            let hash = lookup?.hash();
            Some(Key {
                hash,
                id,
                is_holder,
                is_listed: is_holder && has_image,
            })
        })
    }
}

/// The keys in memory, in their order. Those of records that were removed are ignored.
#[derive(Clone, Default)]
pub(in crate::stores) struct NewKeys(Arc<RwLock<Generations>>);

#[derive(Default)]
struct Generations {
    new: BTreeSet<Key>,
    /// Of which some are in the file.
    writing: BTreeSet<Key>,
}

impl NewKeys {
    /// The ids of the records with a key.
    pub(super) fn ids(&self, hash: i64) -> Vec<RecordId> {
        let Generations { new, writing } = &*self.0.read();
        find([new, writing], hash)
    }
}

fn find<const N: usize>(keys: [&BTreeSet<Key>; N], hash: i64) -> Vec<RecordId> {
    let range = Key::range(hash, Uuid::nil(), Uuid::max());
    let found = keys.into_iter().flat_map(|keys| keys.range(range.clone()));
    found.map(|key| key.id).collect()
}

/// The index of an open file, which one thread writes.
pub(in crate::stores) struct KeyWriter {
    shared: NewKeys,
    /// Of the current transaction.
    added: BTreeSet<Key>,
    /// Records that changed while their keys were in memory.
    changed: HashSet<RecordId>,
    /// The last key in memory that is in the file, if some are.
    written: Option<Key>,
    /// Whether the current transaction writes the last ones.
    ends: bool,
}

impl KeyWriter {
    /// Reads the keys that an earlier process, or this one before an error, did not write.
    pub(in crate::stores) fn open(connection: &Connection, shared: NewKeys) -> Result<Self> {
        let mut unkeyed = connection.prepare(&format!(
            "SELECT {KEYED} FROM upload_unkeyed JOIN upload_records USING (id)"
        ))?;
        let mut rows = unkeyed.query([])?;
        let mut new = BTreeSet::new();
        while let Some(row) = rows.next()? {
            new.extend(keys_of(row)?);
        }
        let writing = BTreeSet::new();
        *shared.0.write() = Generations { new, writing };
        Ok(Self {
            shared,
            added: BTreeSet::new(),
            changed: HashSet::new(),
            written: None,
            ends: false,
        })
    }

    /// Adds a new record.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        id: RecordId,
        owner: &Owner<'_>,
    ) -> Result<()> {
        self.added.extend(owner.keys(id));
        let add = "INSERT INTO upload_unkeyed VALUES (?) ON CONFLICT DO NOTHING";
        connection.prepare_cached(add)?.execute([id])?;
        Ok(())
    }

    /// The records with a key that is in memory.
    pub(super) fn ids(&self, hash: i64) -> Vec<RecordId> {
        let Generations { new, writing } = &*self.shared.0.read();
        find([new, writing, &self.added], hash)
    }

    pub(in crate::stores) fn begin(&mut self) {
        self.added.clear();
        self.ends = false;
    }

    /// Writes some keys, at the end of a transaction.
    pub(in crate::stores) fn write_some(&mut self, connection: &Connection) -> Result<()> {
        if self.shared.0.read().writing.is_empty() {
            let mut keys = self.shared.0.write();
            if keys.new.len() < MAX_NEW {
                return Ok(());
            }
            keys.writing = mem::take(&mut keys.new);
            self.written = None;
        }
        let count = MIN_WRITTEN.max(WRITTEN_PER_ADDED * self.added.len());
        let keys = self.shared.0.read();
        let after = self.written.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = keys.writing.range((after, Bound::Unbounded));
        let insert = "INSERT INTO upload_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        let mut insert = connection.prepare_cached(insert)?;
        for key in rest.by_ref().take(count) {
            let mut now = Some(*key);
            if self.changed.contains(&key.id) {
                // None if the record was removed, or has the key no longer.
                let mut keys = stored_keys(connection, key.id)?.into_iter();
                now = keys.find(|now| now.hash == key.hash);
            }
            if let Some(now) = now {
                insert.execute(params![now.hash, now.is_listed, now.id])?;
            }
            self.written = Some(*key);
        }
        if rest.next().is_some() {
            return Ok(());
        }
        self.ends = true;
        let mut keyed = connection.prepare_cached("DELETE FROM upload_unkeyed WHERE id = ?")?;
        let ids: BTreeSet<_> = keys.writing.iter().map(|key| key.id).collect();
        for id in ids {
            keyed.execute([id])?;
        }
        Ok(())
    }

    /// The transaction was committed.
    pub(in crate::stores) fn commit(&mut self) {
        let mut keys = self.shared.0.write();
        if self.ends {
            keys.writing = BTreeSet::new();
            let new: HashSet<_> = keys.new.iter().map(|key| key.id).collect();
            self.changed.retain(|id| new.contains(id));
        }
        // `append` would copy all of them.
        keys.new.extend(mem::take(&mut self.added));
    }

    /// Records that a record changes, and returns its keys.
    fn change(&mut self, connection: &Connection, id: RecordId) -> Result<Vec<Key>> {
        let keys = stored_keys(connection, id)?;
        let Generations { new, writing } = &*self.shared.0.read();
        let is_new = |key: &Key| {
            let mut sets = [new, writing, &self.added].into_iter();
            sets.any(|keys| keys.range(key.same()).next().is_some())
        };
        if keys.iter().any(is_new) {
            self.changed.insert(id);
        }
        Ok(keys)
    }

    /// Removes the keys of a record that is about to be removed.
    pub(super) fn remove(&mut self, connection: &Connection, id: RecordId) -> Result<()> {
        let keys = self.change(connection, id)?;
        let remove = "DELETE FROM upload_keys WHERE hash = ? AND is_listed IN (0, 1) AND id = ?";
        let mut remove = connection.prepare_cached(remove)?;
        for key in keys {
            remove.execute(params![key.hash, id])?;
        }
        let unkeyed = "DELETE FROM upload_unkeyed WHERE id = ?";
        connection.prepare_cached(unkeyed)?.execute([id])?;
        Ok(())
    }

    /// Lists a record, whose image is now known, or no longer lists it.
    pub(super) fn list(
        &mut self,
        connection: &Connection,
        id: RecordId,
        is_listed: bool,
    ) -> Result<()> {
        let keys = self.change(connection, id)?;
        let list = "UPDATE upload_keys SET is_listed = ?2
                    WHERE hash = ?1 AND is_listed = 1 - ?2 AND id = ?3";
        let mut list = connection.prepare_cached(list)?;
        for key in keys {
            if key.is_holder {
                list.execute(params![key.hash, is_listed, id])?;
            }
        }
        Ok(())
    }
}

/// The columns of [`keys_of`].
const KEYED: &str = "id, subject, workspace, image, token, slot, exists_now";

/// Reads the columns [`KEYED`].
fn keys_of(row: &Row<'_>) -> Result<Vec<Key>> {
    let id = row.get(0)?;
    let text = |column| -> Result<Option<String>> {
        let text: Option<IdText> = row.get(column)?;
        Ok(text.map(|IdText(text)| text))
    };
    let Some(subject) = text(1)?.and_then(|id| SubjectId::parse(&id).ok()) else {
        return Ok(Vec::new());
    };
    let workspace = text(2)?.and_then(|id| WorkspaceId::parse(&id).ok());
    let image = text(3)?.and_then(|id| ImageId::parse(&id));
    let token = text(4)?.and_then(|id| TokenId::parse(&id));
    let replay = digest(row, 5)?.map(|slot| Replay {
        slot,
        parameters: [0; 32],
    });
    let owner = Owner {
        subject: &subject,
        workspace: workspace.as_ref(),
        image: image.as_ref(),
        token: token.as_ref(),
        replay: replay.as_ref(),
    };
    let exists: bool = row.get(6)?;
    let keys = owner.keys(id).map(|key| Key {
        is_listed: key.is_holder && exists,
        ..key
    });
    Ok(keys.collect())
}

fn stored_keys(connection: &Connection, id: RecordId) -> Result<Vec<Key>> {
    let find = format!("SELECT {KEYED} FROM upload_records WHERE id = ?");
    let mut find = connection.prepare_cached(&find)?;
    let keys = find.query_row([id], keys_of).optional()?;
    Ok(keys.unwrap_or_default())
}

/// Adds a key to a record that exists, at once.
pub(super) fn insert(connection: &Connection, lookup: Lookup<'_>, id: RecordId) -> Result<()> {
    let insert = "INSERT INTO upload_keys VALUES (?, 0, ?) ON CONFLICT DO NOTHING";
    let mut insert = connection.prepare_cached(insert)?;
    insert.execute(params![lookup.hash(), id])?;
    Ok(())
}

/// Removes a key of a record that stays.
pub(super) fn forget(connection: &Connection, lookup: Lookup<'_>, id: RecordId) -> Result<()> {
    let forget = "DELETE FROM upload_keys WHERE hash = ? AND is_listed = 0 AND id = ?";
    let mut forget = connection.prepare_cached(forget)?;
    forget.execute(params![lookup.hash(), id])?;
    Ok(())
}

/// The ids of all records whose keys may not be written.
pub(super) fn unkeyed(connection: &Connection) -> Result<Vec<RecordId>> {
    let mut all = connection.prepare("SELECT id FROM upload_unkeyed")?;
    all.query_map([], |row| row.get(0))?.collect()
}
