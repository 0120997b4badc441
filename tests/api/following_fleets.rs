//! Several gates that share a PostgreSQL follow open uploads together.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    helpers::{Emulator, ServerKey, eventually},
    postgres::Postgres,
    upload_records::{opened, png, put_png, recording, state},
};

#[actix_web::test]
async fn three_gates_follow_a_thousand_uploads_and_each_is_read_by_one_at_a_time() {
    const UPLOADS: usize = 1_000;
    let Some(postgres) = Postgres::here() else {
        return;
    };
    let postgres = postgres.await;
    let imgwire = Emulator::start().unwrap();
    let keys = ["sk_gate_1", "sk_gate_2", "sk_gate_3"];
    imgwire.change(|scenario| {
        scenario.server_keys.extend(keys.map(ServerKey::new));
        scenario.processing_milliseconds = 0;
    });
    let mut gates = Vec::new();
    for key in keys {
        let gate = recording()
            .store("main", json!({ "url": postgres.url() }))
            .imgwire("base_url", imgwire.url())
            .secret("TEST_API_KEY", key);
        gates.push(gate.start().await);
    }
    let uploads = (0..UPLOADS).map(|number| {
        let gate = gates[number % gates.len()].url.clone();
        async move { opened(&gate, "/mine", "user_1", &png()).await }
    });
    let uploads: Vec<_> = stream::iter(uploads).buffer_unordered(24).collect().await;
    let read = || {
        let reads = imgwire.reads().into_iter();
        reads.map(|read| read.image).collect::<HashSet<_>>()
    };
    eventually("reads of all", async || read().len() == UPLOADS).await;
    // The youngest ones are read most often.
    let arriving = &uploads[UPLOADS - 30..];
    for (_, url) in arriving {
        put_png(url).await;
    }
    for (image, _) in arriving {
        eventually("the file is noticed", async || {
            state(&gates[0], image).await == "ready"
        })
        .await;
    }
    let reads = imgwire.reads();
    for key in keys {
        let own = reads.iter().filter(|read| read.key == key).count();
        assert!(own > UPLOADS / 20, "{key} read {own}");
    }
    let mut of_image: HashMap<_, Vec<_>> = HashMap::new();
    for read in reads {
        of_image
            .entry(read.image)
            .or_default()
            .push((read.at, read.key));
    }
    // Two gates that had taken one upload would read it at about the same time.
    for (image, reads) in of_image {
        for pair in reads.windows(2) {
            let pause = pair[1].0.duration_since(pair[0].0);
            assert!(pause.as_secs_f64() > 3.5, "{image}: {reads:?}");
        }
    }
}
