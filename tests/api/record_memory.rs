//! Records are not kept in memory.

use std::{fs, process::Command, sync::Arc};

use futures_util::future::join_all;
use policies::{SubjectId, WorkspaceId};

use crate::{
    backends::Sqlite,
    helpers::records::{Holder, Page, RecordQuery},
    record_stores::{complete, intent, new_image, origin, records},
};

/// The number of records, in the process that has nothing else in its memory.
const RECORDS: &str = "IMGWIRE_GATE_TESTS_RECORDS";

const TEST: &str = "record_memory::a_hundred_thousand_records_take_little_memory";

/// The memory of this process, in MiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let kib = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}

#[actix_web::test]
async fn a_hundred_thousand_records_take_little_memory() {
    if let Ok(count) = std::env::var(RECORDS) {
        return measure(count.parse().unwrap()).await;
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone
        .args(["--exact", TEST, "--nocapture"])
        .env(RECORDS, "100000");
    let output = alone.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

async fn measure(count: usize) {
    const AT_ONCE: usize = 500;

    let file = Sqlite::new();
    let store = records(&file);
    let upload = async |number: usize| {
        let user = format!("user_{}", number % 1000);
        let workspace = number
            .is_multiple_of(2)
            .then(|| format!("ws_{}", number % 50));
        let intent = intent(origin(&user, workspace.as_deref()));
        complete(&*store, Arc::new(intent), new_image()).await;
    };
    join_all((0..AT_ONCE).map(&upload)).await;
    let before = memory();
    for first in (AT_ONCE..count).step_by(AT_ONCE) {
        join_all((first..first + AT_ONCE).map(&upload)).await;
    }
    let page = |number| Page { number, size: 20 };
    let workspace = Holder::Workspace(WorkspaceId::parse("ws_0").unwrap());
    let listed = store.images(workspace, page(100)).await.unwrap();
    assert_eq!((listed.images.len(), listed.total), (20, count as u64 / 50));
    let query = RecordQuery {
        subject: Some(SubjectId::parse("user_7").unwrap()),
        ..RecordQuery::default()
    };
    let found = store.find(query, page(2)).await.unwrap();
    assert_eq!(found.len(), 20);
    let (mut last, mut exported) = (None, 0);
    loop {
        let page = store.export(last, 1000).await.unwrap();
        let Some(record) = page.last() else { break };
        last = Some(record.id);
        exported += page.len();
    }
    assert_eq!(exported, count);
    let grown = memory().saturating_sub(before);
    assert!(grown < 25, "{count} records took {grown} MiB");
}
