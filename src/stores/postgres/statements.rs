//! A connection to the counters, with prepared statements.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::{connect::Session, schema::migrate, time::micros};
use crate::stores::store_clock::StoreClock;

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
