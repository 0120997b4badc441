//! A connection to the counters, with its tables and prepared statements.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join;
use jiff::Timestamp;
use policies::Window;
use tokio_postgres::{Client, Error, GenericClient, Row, Statement};
use uuid::Uuid;

use super::connect::Session;
use crate::stores::shared_quotas::StoreClock;

pub(super) struct Statements {
    pub(super) session: Session,
    pub(super) reserve: Statement,
    pub(super) give_back: Statement,
    pub(super) clock: StoreClock,
}

impl Statements {
    /// Creates missing tables, and prepares the statements.
    pub(super) async fn prepare(
        mut session: Session,
        timeout: Duration,
        clock: StoreClock,
    ) -> Result<Self, Error> {
        migrate(&mut session.client).await?;
        // The server cancels slow statements. It waits for a lock only briefly, because other requests of the batch wait,
        // too. It confirms a commit only when it is on its disk.
        let begin = format!(
            "set statement_timeout = {}; \
             set lock_timeout = {}; \
             select set_config('synchronous_commit', 'on', false) \
             where current_setting('synchronous_commit') = 'off'",
            timeout.as_millis().max(1),
            (timeout / 4).as_millis().max(1),
        );
        let client = &session.client;
        client.batch_execute(&begin).await?;
        let now = client.query_one("select clock_timestamp()", &[]).await?;
        clock.report(micros(now.get(0)));
        let (reserve, give_back) = join(
            client.prepare(include_str!("reserve.sql")),
            client.prepare(include_str!("give_back.sql")),
        )
        .await;
        Ok(Self {
            reserve: reserve?,
            give_back: give_back?,
            session,
            clock,
        })
    }

    /// Counts a unit and gives it back in a transaction that is rolled back. This finds missing permissions. The key is
    /// new, so no other gate waits for it.
    pub(super) async fn probe(mut self) -> Result<(), Error> {
        // No policy name contains a space.
        const POLICY: [&str; 1] = ["a probe"];

        let key = vec![Uuid::new_v4().to_string()];
        let now = vec![UNIX_EPOCH];
        let unit = vec![1_i64];
        let transaction = self.session.client.transaction().await?;
        let policy = POLICY.to_vec();
        transaction
            .execute(&self.reserve, &[&policy, &key, &now, &now, &unit, &unit])
            .await?;
        transaction
            .execute(&self.give_back, &[&policy, &key, &now, &unit])
            .await?;
        transaction.rollback().await
    }

    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }
}

/// Applied once each, in this order. Existing entries never change; new ones are appended.
const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/1_quota.sql"),
    include_str!("migrations/2_lease.sql"),
];

/// The advisory lock that serializes gates which start at the same time: "imgwire" in ASCII.
const LOCK: i64 = 0x0069_6d67_7769_7265;

/// Applies missing migrations. If none are missing, the role needs no right to create tables.
async fn migrate(client: &mut Client) -> Result<(), Error> {
    if version(client).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction
        .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    // Another gate may have migrated while this one waited.
    let done = version(&transaction).await?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.batch_execute(migration).await?;
        let version = i32::try_from(index + 1).unwrap_or(i32::MAX);
        transaction
            .execute(
                "insert into imgwire_gate.migration (version) values ($1)",
                &[&version],
            )
            .await?;
    }
    transaction.commit().await
}

async fn version(client: &impl GenericClient) -> Result<usize, Error> {
    // Scans the catalog, because a lookup by name may use a cached result from before another gate created the table.
    let exists = "select exists (select from pg_catalog.pg_tables \
                 where schemaname = 'imgwire_gate' and tablename = 'migration')";
    if !client.query_one(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let latest = "select coalesce(max(version), 0) from imgwire_gate.migration";
    let latest: i32 = client.query_one(latest, &[]).await?.get(0);
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
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

pub(super) fn micros(time: SystemTime) -> i64 {
    timestamp(time).as_microsecond()
}
