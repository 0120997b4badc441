//! The tables of counters, made by whoever comes first.

use tokio_postgres::{Client, Error, GenericClient};

/// Each is applied once, in this order; what is here is never changed, only added to.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1_quota.sql")];

/// The advisory lock that gates which start together take turns by: "imgwire" in ASCII.
const LOCK: i64 = 0x0069_6d67_7769_7265;

/// Applies what was not applied yet. A role that may not make tables does well as long as there is nothing to apply.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Error> {
    if version(client).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction
        .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    // Another gate may have been here while this one waited.
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

/// How many migrations were applied.
async fn version(client: &impl GenericClient) -> Result<usize, Error> {
    // By a scan: what was looked up by name may be remembered from before another gate made it.
    let there = "select exists (select from pg_catalog.pg_tables \
                 where schemaname = 'imgwire_gate' and tablename = 'migration')";
    if !client.query_one(there, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let latest = "select coalesce(max(version), 0) from imgwire_gate.migration";
    let latest: i32 = client.query_one(latest, &[]).await?.get(0);
    Ok(usize::try_from(latest).unwrap_or_default())
}
