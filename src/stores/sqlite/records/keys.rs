//! The index of records: by image, token, slot, subject and workspace.
//!
//! These are in random order. If each upload wrote them at once, it would write a page of each index, and a commit of 32
//! uploads costs three times as much (measured: 39 us of CPU per upload instead of 13). So new keys stay in memory, with
//! the ids of their records in a small table. When there are many, they are written in their own order, a few in each
//! commit. What is read comes from both.

use std::sync::Arc;

use parking_lot::RwLock;
use policies::{ImageId, SubjectId, TokenId, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

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
    /// Whether it lists the images of their holder.
    is_holder: bool,
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
        lookups.into_iter().filter_map(move |(lookup, is_holder)| {
            let hash = lookup?.hash();
            Some(Key {
                hash,
                id,
                is_holder,
            })
        })
    }
}

/// The keys in memory. Those of records that were removed are ignored.
#[derive(Clone, Default)]
pub(in super::super) struct NewKeys(Arc<RwLock<Vec<Key>>>);

impl NewKeys {
    /// The ids of the records with a key, as a JSON array of hexadecimal texts.
    pub(super) fn ids(&self, hash: i64) -> String {
        let mut ids = "[".to_owned();
        let keys = self.0.read();
        for key in keys.iter().filter(|key| key.hash == hash) {
            add_id(&mut ids, key.id);
        }
        ids.push(']');
        ids
    }
}

fn add_id(ids: &mut String, id: RecordId) {
    let separator = if ids.len() > 1 { "," } else { "" };
    let id = id.0.simple();
    ids.push_str(&format!("{separator}\"{id}\""));
}

/// The index of an open file, which one thread writes.
pub(in super::super) struct KeyWriter {
    shared: NewKeys,
    /// Of the current transaction.
    added: Vec<Key>,
    /// The first keys in memory, in their order, of which the first were written.
    writing: Vec<Key>,
    written: usize,
}

impl KeyWriter {
    /// Reads the keys that an earlier process, or this one before an error, did not write.
    pub(in super::super) fn open(connection: &Connection, shared: NewKeys) -> Result<Self> {
        let mut unkeyed = connection.prepare(
            "SELECT id, subject, workspace, image, token, slot FROM upload_unkeyed JOIN upload_records USING (id)",
        )?;
        let mut rows = unkeyed.query([])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.extend(keys_of(row)?);
        }
        *shared.0.write() = keys;
        Ok(Self {
            shared,
            added: Vec::new(),
            writing: Vec::new(),
            written: 0,
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

    /// The records with a key that is in memory, as [`NewKeys::ids`].
    pub(super) fn ids(&self, hash: i64) -> String {
        let mut ids = self.shared.ids(hash);
        ids.pop();
        for key in self.added.iter().filter(|key| key.hash == hash) {
            add_id(&mut ids, key.id);
        }
        ids.push(']');
        ids
    }

    pub(in super::super) fn begin(&mut self) {
        self.added.clear();
    }

    /// Writes some keys, at the end of a transaction.
    pub(in super::super) fn write_some(&mut self, connection: &Connection) -> Result<()> {
        if self.writing.is_empty() {
            let new = self.shared.0.read();
            if new.len() < MAX_NEW {
                return Ok(());
            }
            self.writing.clone_from(&new);
            drop(new);
            self.writing.sort_unstable();
            self.written = 0;
        }
        let count = MIN_WRITTEN.max(WRITTEN_PER_ADDED * self.added.len());
        let next = self.writing.iter().skip(self.written).take(count);
        // As the record is now. None if it was removed.
        let mut write = connection.prepare_cached(
            "INSERT INTO upload_keys SELECT ?1, ?2 AND exists_now, id FROM upload_records WHERE id = ?3
             ON CONFLICT DO NOTHING",
        )?;
        for key in next {
            write.execute(params![key.hash, key.is_holder, key.id])?;
        }
        self.written += count;
        if self.written < self.writing.len() {
            return Ok(());
        }
        let mut keyed = connection.prepare_cached("DELETE FROM upload_unkeyed WHERE id = ?")?;
        let mut ids: Vec<_> = self.writing.iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            keyed.execute([id])?;
        }
        Ok(())
    }

    /// The transaction was committed.
    pub(in super::super) fn commit(&mut self) {
        let mut new = self.shared.0.write();
        if !self.writing.is_empty() && self.written >= self.writing.len() {
            new.drain(..self.writing.len());
            self.writing = Vec::new();
        }
        new.append(&mut self.added);
    }
}

/// The keys of a row with the id, the subject, the workspace, the image, the token and the slot.
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
    Ok(owner.keys(id).collect())
}

fn written_keys(connection: &Connection, id: RecordId) -> Result<Vec<Key>> {
    let find = "SELECT id, subject, workspace, image, token, slot FROM upload_records WHERE id = ?";
    let mut find = connection.prepare_cached(find)?;
    let keys = find.query_row([id], keys_of).optional()?;
    Ok(keys.unwrap_or_default())
}

/// Removes the keys of a record that is about to be removed.
pub(super) fn remove(connection: &Connection, id: RecordId) -> Result<()> {
    let remove = "DELETE FROM upload_keys WHERE hash = ? AND is_listed IN (0, 1) AND id = ?";
    let mut remove = connection.prepare_cached(remove)?;
    for key in written_keys(connection, id)? {
        remove.execute(params![key.hash, id])?;
    }
    let unkeyed = "DELETE FROM upload_unkeyed WHERE id = ?";
    connection.prepare_cached(unkeyed)?.execute([id])?;
    Ok(())
}

/// Lists a record, whose image is now known, or no longer lists it.
pub(super) fn list(connection: &Connection, id: RecordId, is_listed: bool) -> Result<()> {
    let list =
        "UPDATE upload_keys SET is_listed = ?2 WHERE hash = ?1 AND is_listed = 1 - ?2 AND id = ?3";
    let mut list = connection.prepare_cached(list)?;
    for key in written_keys(connection, id)? {
        if key.is_holder {
            list.execute(params![key.hash, is_listed, id])?;
        }
    }
    Ok(())
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

/// The ids of all records whose keys may not be written, as [`NewKeys::ids`].
pub(super) fn unkeyed(connection: &Connection) -> Result<String> {
    let all = "SELECT json_group_array(hex(id)) FROM upload_unkeyed";
    connection.query_row(all, [], |row| row.get(0))
}
