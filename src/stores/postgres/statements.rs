//! A connection to the counters, and its statements.
//!
//! A connection with a server process of its own has its settings for the session, and prepared statements. Behind a
//! pooler, the next transaction may run on another process, and other clients use this one. So there each operation is
//! a transaction of its own, which sets what it needs for itself only and leaves nothing behind. Its messages are sent
//! together, so that it takes one round trip, too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{join, join3, join4};
use jiff::Timestamp;
use policies::{StoreUse, Window};
use tokio_postgres::{
    Client, Error, Row, Statement,
    error::SqlState,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{
    connect::Session,
    transaction::{Access, begin, begin_inspection, in_transaction, outcome},
};
use crate::stores::shared_quotas::StoreClock;

/// A statement with the types of its parameters, so that the server need not be asked for them.
pub(super) struct Sql {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

pub(super) const RESERVE: Sql = Sql {
    text: include_str!("reserve.sql"),
    types: &[
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ],
};

pub(super) const GIVE_BACK: Sql = Sql {
    text: include_str!("give_back.sql"),
    types: &[
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::INT8_ARRAY,
    ],
};

/// Finds missing privileges for records of uploads. It changes nothing.
const PROBE_RECORDS: &str = "\
    insert into imgwire_gate.upload select * from imgwire_gate.upload where false; \
    update imgwire_gate.upload set id = id where false; \
    delete from imgwire_gate.upload where false; \
    insert into imgwire_gate.erasure select * from imgwire_gate.erasure where false; \
    update imgwire_gate.erasure set id = id where false; \
    delete from imgwire_gate.erasure where false; \
    insert into imgwire_gate.upload_secret select * from imgwire_gate.upload_secret where false; \
    insert into imgwire_gate.storage select * from imgwire_gate.storage where false; \
    update imgwire_gate.storage set bytes = bytes where false; \
    delete from imgwire_gate.storage where false; \
    insert into imgwire_gate.event select * from imgwire_gate.event where false; \
    update imgwire_gate.event set id = id where false; \
    delete from imgwire_gate.event where false; \
    update imgwire_gate.upload_reads set times = times where false; \
    insert into imgwire_gate.reconciliation select * from imgwire_gate.reconciliation where false; \
    update imgwire_gate.reconciliation set id = id where false; \
    delete from imgwire_gate.reconciliation where false";

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(super) struct Statements {
    pub(super) session: Session,
    pub(super) clock: StoreClock,
    sent_as: SentAs,
}

enum SentAs {
    Prepared {
        reserve: Statement,
        give_back: Statement,
    },
    /// What begins each transaction.
    Transactions { begin: String },
}

impl Statements {
    /// Creates missing tables if needed, and prepares the connection.
    pub(super) async fn prepare(
        session: Session,
        timeout: Duration,
        clock: StoreClock,
    ) -> Result<Self, Error> {
        let client = &session.client;
        let begin_as = |access| match session.is_pooled {
            true => begin(access, timeout),
            false => "begin".to_owned(),
        };
        let (settings, version) = join(
            Settings::read(client, &begin_inspection(timeout), &clock),
            version(client, &begin_as(Access::Read { search_path: None })),
        )
        .await;
        let settings = settings?;
        if version? < MIGRATIONS.len() {
            migrate(client, &begin_as(Access::Migrate)).await?;
        }
        let sent_as = if session.is_pooled {
            SentAs::Transactions {
                begin: begin_as(Access::Write {
                    commits_are_durable: settings.commits_are_durable,
                }),
            }
        } else {
            let (set, reserve, give_back) = join3(
                settings.apply(client, timeout),
                client.prepare_typed(RESERVE.text, RESERVE.types),
                client.prepare_typed(GIVE_BACK.text, GIVE_BACK.types),
            )
            .await;
            set?;
            SentAs::Prepared {
                reserve: reserve?,
                give_back: give_back?,
            }
        };
        Ok(Self {
            session,
            clock,
            sent_as,
        })
    }

    pub(super) async fn reserve(&self, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        match &self.sent_as {
            SentAs::Prepared { reserve, .. } => self.client().query(reserve, parameters).await,
            SentAs::Transactions { .. } => self.query(&RESERVE, parameters).await,
        }
    }

    pub(super) async fn give_back(&self, parameters: Parameters<'_>) -> Result<(), Error> {
        let given_back = match &self.sent_as {
            SentAs::Prepared { give_back, .. } => self.client().query(give_back, parameters).await,
            SentAs::Transactions { .. } => self.query(&GIVE_BACK, parameters).await,
        };
        given_back.map(drop)
    }

    /// Runs a statement that is not prepared.
    pub(super) async fn query(
        &self,
        sql: &Sql,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        let parameters = typed(sql, parameters);
        let client = self.client();
        let query = client.query_typed(sql.text, &parameters);
        match &self.sent_as {
            SentAs::Prepared { .. } => query.await,
            SentAs::Transactions { begin } => in_transaction(client, begin, query).await,
        }
    }

    /// Tries what the uses need in a transaction that is rolled back. This finds missing permissions.
    pub(super) async fn probe(self, uses: &[StoreUse]) -> Result<(), Error> {
        let begin = match &self.sent_as {
            SentAs::Prepared { .. } => "begin",
            SentAs::Transactions { begin } => begin,
        };
        let client = self.client();
        let counted = async {
            match uses.contains(&StoreUse::Quotas) {
                true => self.probe_counters().await,
                false => Ok(()),
            }
        };
        let recorded = async {
            match uses.contains(&StoreUse::Uploads) {
                true => client.batch_execute(PROBE_RECORDS).await,
                false => Ok(()),
            }
        };
        let (begun, counted, recorded, rolled_back) = join4(
            client.batch_execute(begin),
            counted,
            recorded,
            client.batch_execute("rollback"),
        )
        .await;
        outcome(begun, counted.and(recorded), rolled_back)
    }

    /// Counts a unit and gives it back. The key is new, so no other gate waits for it.
    async fn probe_counters(&self) -> Result<(), Error> {
        // No policy name contains a space.
        const POLICY: [&str; 1] = ["a probe"];

        let policy = POLICY.to_vec();
        let key = vec![Uuid::new_v4().to_string()];
        let now = vec![UNIX_EPOCH];
        let unit = vec![1_i64];
        let client = self.client();
        let (reserved, given_back) = join(
            client.query_typed(
                RESERVE.text,
                &typed(&RESERVE, &[&policy, &key, &now, &now, &unit, &unit]),
            ),
            client.query_typed(
                GIVE_BACK.text,
                &typed(&GIVE_BACK, &[&policy, &key, &now, &unit]),
            ),
        )
        .await;
        reserved.and(given_back).map(drop)
    }

    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }
}

fn typed<'a>(sql: &Sql, parameters: Parameters<'a>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let types = sql.types.iter().cloned();
    parameters.iter().copied().zip(types).collect()
}

/// What the server does unless a session says otherwise.
struct Settings {
    /// Whether a commit is confirmed only when it is on the disk.
    commits_are_durable: bool,
}

impl Settings {
    async fn read(client: &Client, begin: &str, clock: &StoreClock) -> Result<Self, Error> {
        const READ: &str = "select clock_timestamp(), reset_val <> 'off' from pg_settings \
                            where name = 'synchronous_commit'";
        let read = in_transaction(client, begin, client.query_typed_one(READ, &[])).await?;
        clock.report(micros(read.get(0)));
        Ok(Self {
            commits_are_durable: read.get(1),
        })
    }

    /// Applies the settings to a session of the gate's own. The server cancels slow statements. It waits for a lock
    /// only briefly, because other requests of the batch wait, too.
    async fn apply(&self, client: &Client, timeout: Duration) -> Result<(), Error> {
        let durable = match self.commits_are_durable {
            true => "",
            false => "set synchronous_commit to on; ",
        };
        let set = format!(
            "{durable}set statement_timeout to {}; set lock_timeout to {}",
            timeout.as_millis().max(1),
            (timeout / 4).as_millis().max(1),
        );
        client.batch_execute(&set).await
    }
}

/// Applied once each, in this order. Existing entries never change; new ones are appended.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/1_quota.sql"),
    include_str!("migrations/2_lease.sql"),
    include_str!("migrations/3_upload.sql"),
    include_str!("migrations/4_storage.sql"),
];

/// The advisory lock that serializes gates which start at the same time: "imgwire" in ASCII. It ends with its
/// transaction.
const LOCK: i64 = 0x0069_6d67_7769_7265;

/// Applies missing migrations. A connection whose transaction fails is closed.
async fn migrate(client: &Client, begin: &str) -> Result<(), Error> {
    client.batch_execute(begin).await?;
    let lock = format!("select pg_advisory_xact_lock({LOCK})");
    client.batch_execute(&lock).await?;
    // Scans the catalog, because a lookup by name may use a cached result from before another gate created the table.
    let exists = "select exists (select from pg_tables \
                 where schemaname = 'imgwire_gate' and tablename = 'migration')";
    let exists = client.query_typed_one(exists, &[]).await?.get(0);
    // Another gate may have migrated while this one waited.
    let done = if exists { latest(client).await? } else { 0 };
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        client.batch_execute(migration).await?;
        let version = index + 1;
        let record = format!("insert into imgwire_gate.migration (version) values ({version})");
        client.batch_execute(&record).await?;
    }
    client.batch_execute("commit").await
}

/// How many migrations are applied. If none are missing, the role needs no right to create tables.
async fn version(client: &Client, begin: &str) -> Result<usize, Error> {
    match in_transaction(client, begin, latest(client)).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(0),
        version => version,
    }
}

async fn latest(client: &Client) -> Result<usize, Error> {
    let latest = "select coalesce(max(version), 0) from imgwire_gate.migration";
    let latest: i32 = client.query_typed_one(latest, &[]).await?.get(0);
    Ok(usize::try_from(latest).unwrap_or_default())
}

/// The system's range includes every timestamp.
pub(super) fn system_time(timestamp: Timestamp) -> SystemTime {
    SystemTime::try_from(timestamp).unwrap_or(UNIX_EPOCH)
}

/// The window in the column `start` and the next one. It comes back as written.
pub(super) fn window(row: &Row, start: usize) -> Window {
    Window {
        start: timestamp(row.get(start)),
        end: timestamp(row.get(start + 1)),
    }
}

/// A time outside of the calendar becomes its end.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn micros(time: SystemTime) -> i64 {
    timestamp(time).as_microsecond()
}
