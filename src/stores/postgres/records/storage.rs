//! What records hold of the storage. Triggers count it, so that each change of a record changes its counters, too.

use std::collections::BTreeMap;

use policies::{Counter, StorageCharge, StorageLimits, StorageUsed};
use tokio_postgres::{Row, types::Type};

use super::{
    super::{
        batch::key,
        statements::{Sql, Statements},
    },
    rows::{Parameter, Run, get, unsigned},
};
use crate::stores::{
    fault::StoreFault,
    records::{Begun, Intent, RecordId},
};

/// Counters in the order of their names, so that the order of the policies does not matter.
pub(super) struct NamedCounters<T>(BTreeMap<(String, String), T>);

impl<T> NamedCounters<T> {
    pub(super) fn new<'a>(counters: impl IntoIterator<Item = (&'a Counter, T)>) -> Self {
        let named = counters
            .into_iter()
            .map(|(counter, value)| (name(counter), value));
        Self(named.collect())
    }

    /// The policies and the keys of the counters, or null if there are none.
    pub(super) fn names(&self) -> (Option<Vec<&str>>, Option<Vec<&str>>) {
        if self.0.is_empty() {
            return (None, None);
        }
        let names = self.0.keys();
        let (policies, keys) = names
            .map(|(policy, key)| (policy.as_str(), key.as_str()))
            .unzip();
        (Some(policies), Some(keys))
    }
}

impl<'a> NamedCounters<&'a StorageCharge> {
    pub(super) fn of(intent: &'a Intent) -> Self {
        Self::new(intent.charges.iter().map(|it| (&it.counter, it)))
    }

    /// A limit that is not enforced is null, and so is one beyond `bigint`.
    pub(super) fn limits(
        &self,
        limit: impl Fn(StorageLimits) -> Option<u64>,
    ) -> Option<Vec<Option<i64>>> {
        let limits = self.0.values().map(|charge| {
            let limits = charge.is_enforced.then_some(charge.limits)?;
            i64::try_from(limit(limits)?).ok()
        });
        (!self.0.is_empty()).then(|| limits.collect())
    }
}

fn name(counter: &Counter) -> (String, String) {
    (counter.policy.to_string(), key(counter))
}

/// Reads the outcome, and what the counters count without the upload.
pub(super) fn begun(row: &Row, intent: &Intent) -> Run<Begun> {
    let outcome: &str = get(row, 0)?;
    let counts = |column| get::<Option<Vec<i64>>>(row, column).map(Option::unwrap_or_default);
    let (bytes, images, open) = (counts(1)?, counts(2)?, counts(3)?);
    let used = bytes.into_iter().zip(images).zip(open);
    let used = used.map(|((bytes, images), open)| StorageUsed {
        bytes: bytes.try_into().unwrap_or_default(),
        images: images.try_into().unwrap_or_default(),
        open: open.try_into().unwrap_or_default(),
    });
    let used: BTreeMap<_, _> = NamedCounters::of(intent).0.into_keys().zip(used).collect();
    let asked = intent.origin.declared.size.unwrap_or_default();
    let mut full = intent.charges.iter().filter_map(|charge| {
        let used = used.get(&name(&charge.counter))?;
        let full = charge.check(*used, asked)?;
        Some((charge, (charge.counter.policy.clone(), full)))
    });
    Ok(match outcome {
        "recorded" => Begun::Recorded(full.map(|(_, full)| full).collect()),
        "full" => match full.find(|(charge, _)| charge.is_enforced) {
            Some((_, (policy, full))) => Begun::Full(policy, full),
            None => return Err(StoreFault::Refused("no storage is full".to_owned()).into()),
        },
        _ => Begun::SlotTaken,
    })
}

/// Only an image that exists counts.
pub(super) async fn recount(
    statements: &Statements,
    id: RecordId,
    counters: &[Counter],
) -> Run<bool> {
    const RECOUNT: Sql = Sql {
        text: "update imgwire_gate.upload set storage_policies = $2, storage_keys = $3 \
               where id = $1 and exists_now \
                 and (storage_policies, storage_keys) is distinct from ($2, $3) \
               returning true",
        types: &[Type::UUID, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
    };
    let counters = NamedCounters::new(counters.iter().map(|counter| (counter, ())));
    let (policies, keys) = counters.names();
    let values: &[Parameter<'_>] = &[&id.0, &policies, &keys];
    Ok(!statements.query(&RECOUNT, values).await?.is_empty())
}

pub(super) async fn used(statements: &Statements, counter: &Counter) -> Run<StorageUsed> {
    const READ: Sql = Sql {
        text: "select least(bytes, 9223372036854775807)::bigint, images, open \
               from imgwire_gate.storage where policy = $1 and key = $2",
        types: &[Type::TEXT, Type::TEXT],
    };
    let (policy, key) = name(counter);
    let rows = statements.query(&READ, &[&policy, &key]).await?;
    let Some(row) = rows.first() else {
        return Ok(StorageUsed::default());
    };
    Ok(StorageUsed {
        bytes: unsigned(row, 0)?,
        images: unsigned(row, 1)?,
        open: unsigned(row, 2)?,
    })
}
