//! How much storage is held. It changes in the transactions that change records, so it equals what the records hold.

use policies::{Counter, StorageUsed};
use rusqlite::{
    Connection, OptionalExtension as _, Result, Row, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use super::writer::RecordWriter;
use crate::stores::records::RecordId;

/// The table of what is held.
pub(super) const STORAGE: &str = "upload_storage";

/// A counter that holds nothing has no row.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS upload_storage (
    policy TEXT NOT NULL,
    key TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    images INTEGER NOT NULL,
    open INTEGER NOT NULL,
    PRIMARY KEY (policy, key)
) STRICT, WITHOUT ROWID;
";

/// The columns of a record, and of an intent, from which [`Held`] is read. The state 2 is open.
pub(super) const HELD: &str =
    "counters, coalesce(real_size, size, 0), state = 2 AND follow_at IS NOT NULL";
pub(super) const HELD_BY_INTENT: &str = "counters, coalesce(size, 0), 1";

/// The counters of a record, as a JSON array of policies and keys. A record that has none has NULL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CountedIn(Vec<(String, String)>);

impl CountedIn {
    pub(super) fn new<'a>(counters: impl IntoIterator<Item = &'a Counter>) -> Option<Self> {
        let counters = counters.into_iter();
        let counters = counters.map(|it| (it.policy.as_str().to_owned(), it.key.clone()));
        let mut counters: Vec<_> = counters.collect();
        counters.sort();
        counters.dedup();
        (!counters.is_empty()).then_some(Self(counters))
    }
}

impl ToSql for CountedIn {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let json = serde_json::to_string(&self.0);
        let json = json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(ToSqlOutput::from(json))
    }
}

impl FromSql for CountedIn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let counters = serde_json::from_str(value.as_str()?);
        counters
            .map(Self)
            .map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// What a record holds, in each of its counters.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) counters: Option<CountedIn>,
    pub(super) amount: StorageUsed,
}

impl Held {
    pub(super) fn upload(counters: Option<CountedIn>, bytes: Option<i64>) -> Self {
        let amount = amount(bytes.unwrap_or_default(), true);
        Self { counters, amount }
    }

    /// Reads the columns [`HELD`] from the column `first` on.
    pub(super) fn read(row: &Row<'_>, first: usize) -> Result<Self> {
        Ok(Self {
            counters: row.get(first)?,
            amount: amount(row.get(first + 1)?, row.get(first + 2)?),
        })
    }

    pub(super) fn take(&self, connection: &Connection) -> Result<()> {
        self.change(connection, StorageUsed::default(), self.amount)
    }

    pub(super) fn give_back(&self, connection: &Connection) -> Result<()> {
        self.change(connection, self.amount, StorageUsed::default())
    }

    /// Holds another amount from now on, in the same counters.
    pub(super) fn become_amount(&self, connection: &Connection, after: StorageUsed) -> Result<()> {
        if after == self.amount {
            return Ok(());
        }
        self.change(connection, self.amount, after)
    }

    fn change(&self, connection: &Connection, from: StorageUsed, to: StorageUsed) -> Result<()> {
        let counters = self
            .counters
            .iter()
            .flat_map(|CountedIn(counters)| counters);
        for (policy, key) in counters {
            let before = find(connection, policy, key)?;
            let moved = |before: u64, from, to| before.saturating_sub(from).saturating_add(to);
            let after = StorageUsed {
                bytes: moved(before.bytes, from.bytes, to.bytes),
                images: moved(before.images, from.images, to.images),
                open: moved(before.open, from.open, to.open),
            };
            write(connection, policy, key, after)?;
        }
        Ok(())
    }
}

fn amount(bytes: i64, is_open: bool) -> StorageUsed {
    StorageUsed {
        bytes: unsigned(bytes),
        images: 1,
        open: is_open.into(),
    }
}

pub(super) fn used(connection: &Connection, counter: &Counter) -> Result<StorageUsed> {
    find(connection, counter.policy.as_str(), &counter.key)
}

fn find(connection: &Connection, policy: &str, key: &str) -> Result<StorageUsed> {
    let find = "SELECT bytes, images, open FROM upload_storage WHERE policy = ? AND key = ?";
    let mut find = connection.prepare_cached(find)?;
    let used = find.query_row([policy, key], |row| {
        Ok(StorageUsed {
            bytes: unsigned(row.get(0)?),
            images: unsigned(row.get(1)?),
            open: unsigned(row.get(2)?),
        })
    });
    Ok(used.optional()?.unwrap_or_default())
}

fn write(connection: &Connection, policy: &str, key: &str, used: StorageUsed) -> Result<()> {
    if used == StorageUsed::default() {
        let delete = "DELETE FROM upload_storage WHERE policy = ? AND key = ?";
        connection.prepare_cached(delete)?.execute([policy, key])?;
        return Ok(());
    }
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let values = params![
        policy,
        key,
        signed(used.bytes),
        signed(used.images),
        signed(used.open),
    ];
    // Most counters exist.
    let update = "UPDATE upload_storage SET bytes = ?3, images = ?4, open = ?5
                  WHERE policy = ?1 AND key = ?2";
    if connection.prepare_cached(update)?.execute(values)? == 0 {
        let insert = "INSERT INTO upload_storage VALUES (?, ?, ?, ?, ?)";
        connection.prepare_cached(insert)?.execute(values)?;
    }
    Ok(())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Counts an image that exists in other counters. Returns whether that is a change.
pub(super) fn recount(
    open: &mut RecordWriter<'_>,
    id: RecordId,
    counters: &[Counter],
) -> Result<bool> {
    let connection = open.connection;
    let held = format!("SELECT {HELD} FROM upload_records WHERE id = ? AND exists_now");
    let mut held = connection.prepare_cached(&held)?;
    let Some(before) = held.query_row([id], |row| Held::read(row, 0)).optional()? else {
        return Ok(false);
    };
    let after = Held {
        counters: CountedIn::new(counters),
        amount: before.amount,
    };
    if after.counters == before.counters {
        return Ok(false);
    }
    before.give_back(connection)?;
    after.take(connection)?;
    let recount = "UPDATE upload_records SET counters = ? WHERE id = ?";
    let mut recount = connection.prepare_cached(recount)?;
    recount.execute(params![after.counters, id])?;
    Ok(true)
}
