//! The tables of counters and leases. The first gate that connects creates them.

use tokio_postgres::{Client, Error, GenericClient};

/// Applied once each, in this order. Existing entries never change; new ones are appended.
const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/1_quota.sql"),
    include_str!("migrations/2_lease.sql"),
];

/// The advisory lock that serializes gates which start at the same time: "imgwire" in ASCII.
const LOCK: i64 = 0x0069_6d67_7769_7265;

/// Applies missing migrations. If none are missing, the role needs no right to create tables.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Error> {
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
