//! A quota whose windows are changed: the current window follows the new setting, and its units count on.

use std::{collections::HashMap, time::Duration};

use actix_web::rt::System;
use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use policies::{Reservation, WindowUnit, Windows};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    backends::{Backend, Sqlite, suite},
    helpers::{Answer, Gate, ROUTE, Request, TestApp, Token, eventually, quota},
    postgres::Postgres,
    quota_stores::{Open, counter, empty, used},
    redis_server::Redis,
    scaling::{counting, patient, ready},
};

suite! {
    [
        counters_follow_changed_windows_like_a_plain_table,
        an_hour_never_has_more_than_the_limit_whatever_the_window_was,
        a_released_unit_is_given_back_after_the_window_was_lengthened,
        a_longer_and_a_shorter_window_count_on,
        a_changed_window_counts_on_after_a_restart,
        concurrent_requests_stay_exact_while_the_window_changes,
    ]:
    in_sqlite: Sqlite,
    in_redis: Redis,
    in_postgresql: Postgres,
}

const LIMIT: u64 = 5;

/// A quota with windows of this length.
fn with_window(url: &str, window: &str) -> Gate {
    let daily = quota().per(["user"]).limit(LIMIT).window(window);
    patient(counting(url))
        .policy("daily", daily.store("shared"))
        .chain(["signed-in", "daily"])
}

fn token() -> Token {
    Token::of("user_1").with("exp", json!(4_000_000_000_u64))
}

async fn ask(gate: &TestApp) -> Answer {
    gate.ask_as(&token()).await
}

async fn issue(gate: &TestApp, count: u64) {
    for _ in 0..count {
        ask(gate).await.assert_token();
    }
}

/// Asserts that the quota is used up until `end`, and that everything that the gate says agrees with that.
async fn is_used_up(gate: &TestApp, now: Timestamp, end: Timestamp, window: Duration) {
    let left = end.as_second() - now.as_second();
    let is_left = |seconds: &str| {
        let seconds: i64 = seconds.parse().unwrap();
        assert!(
            (left - 30..=left + 1).contains(&seconds),
            "{seconds}, not {left}"
        );
    };
    let answer = ask(gate).await;
    answer.assert_error(429, "quota_exhausted");
    is_left(answer.header("retry-after"));
    let policy = format!("\"daily\";q={LIMIT};w={}", window.as_secs());
    assert_eq!(answer.header("ratelimit-policy"), policy);
    let rest = answer.header("ratelimit").strip_prefix("\"daily\";r=0;t=");
    is_left(rest.unwrap());

    let request = gate.request(actix_web::http::Method::GET, &format!("{ROUTE}/allowance"));
    let allowance = Request(request.0).bearer(&token().sign()).send().await.json;
    assert_eq!(allowance["allowed"], false, "{allowance}");
    assert_eq!(allowance["limits"][0]["remaining"], 0);
    let near = |time: &Value| {
        let time: Timestamp = time.as_str().unwrap().parse().unwrap();
        let off = time.as_second() - end.as_second();
        assert!(off.abs() <= 2, "{time}, not {end}");
    };
    near(&allowance["limits"][0]["resetsAt"]);
    let shown = gate.manage("/quota/daily?key=user_1").await.json;
    assert_eq!(shown["used"], LIMIT, "{shown}");
    near(&shown["resetsAt"]);
    let start: Timestamp = shown["windowStart"].as_str().unwrap().parse().unwrap();
    assert_eq!(end.as_second() - start.as_second(), window.as_secs() as i64);
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of the window of `unit` at `now`, in UTC.
fn end_of(unit: WindowUnit, now: Timestamp) -> Timestamp {
    Windows::new(unit, TimeZone::UTC).at(now).end
}

/// Runs a test that must not cross the end of an hour, by the machine's clock.
async fn within_an_hour(test: impl AsyncFn(Timestamp)) {
    let now = Timestamp::now();
    let left = end_of(WindowUnit::Hour, now).as_second() - now.as_second();
    if left < 30 {
        tokio::time::sleep(Duration::from_secs(left as u64 + 1)).await;
    }
    test(Timestamp::now()).await;
}

async fn a_longer_and_a_shorter_window_count_on(backend: impl Backend) {
    let url = backend.url();
    within_an_hour(async |now| {
        let hour = end_of(WindowUnit::Hour, now);
        let day = end_of(WindowUnit::Day, now);
        let gate = with_window(&url, "hour").start().await;
        ready(&gate).await;
        issue(&gate, LIMIT).await;
        is_used_up(&gate, now, hour, HOUR).await;
        gate.reload(&with_window(&url, "day")).unwrap();
        is_used_up(&gate, now, day, DAY).await;
        gate.reload(&with_window(&url, "hour")).unwrap();
        is_used_up(&gate, now, hour, HOUR).await;
        gate.reload(&with_window(&url, "week")).unwrap();
        let week = end_of(WindowUnit::Week, now);
        is_used_up(&gate, now, week, 7 * DAY).await;
        // In another time zone.
        let kolkata = with_window(&url, "day").set("policies.daily.timezone", "Asia/Kolkata");
        gate.reload(&kolkata).unwrap();
        let zone = TimeZone::get("Asia/Kolkata").unwrap();
        let end = Windows::new(WindowUnit::Day, zone).at(now).end;
        is_used_up(&gate, now, end, DAY).await;
        // A higher limit leaves what it adds.
        gate.reload(&with_window(&url, "day").set("policies.daily.limit", LIMIT + 2))
            .unwrap();
        issue(&gate, 2).await;
        ask(&gate).await.assert_error(429, "quota_exhausted");
    })
    .await;
}

async fn a_changed_window_counts_on_after_a_restart(backend: impl Backend) {
    let url = backend.url();
    within_an_hour(async |now| {
        let mut gate = with_window(&url, "hour").start().await;
        ready(&gate).await;
        issue(&gate, 3).await;
        for (window, more, end, length) in [
            ("day", 2, end_of(WindowUnit::Day, now), DAY),
            ("hour", 0, end_of(WindowUnit::Hour, now), HOUR),
            ("week", 0, end_of(WindowUnit::Week, now), 7 * DAY),
        ] {
            gate.begin_stop();
            let _folder = gate.stopped().await;
            gate = with_window(&url, window).start().await;
            ready(&gate).await;
            issue(&gate, more).await;
            is_used_up(&gate, now, end, length).await;
        }
    })
    .await;
}

async fn concurrent_requests_stay_exact_while_the_window_changes(backend: impl Backend) {
    const MANY: u64 = 120;
    let url = backend.url();
    within_an_hour(async |_| {
        let of = |window| with_window(&url, window).set("policies.daily.limit", MANY);
        let gate = of("hour").start().await;
        ready(&gate).await;
        let callers = (0..8).map(async |_| {
            let mut issued = 0;
            loop {
                match ask(&gate).await.status.as_u16() {
                    200 => issued += 1,
                    429 => return issued,
                    other => panic!("{other}"),
                }
            }
        });
        let reloads = async {
            for window in ["day", "hour", "week", "month", "day", "week"].repeat(4) {
                gate.reload(&of(window)).unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (issued, ()) = join(join_all(callers), reloads).await;
        assert_eq!(issued.into_iter().sum::<u64>(), MANY);
    })
    .await;
}

/// A window of a setting at a time.
fn windows() -> [Windows; 5] {
    let in_zone = |unit, zone| Windows::new(unit, TimeZone::get(zone).unwrap());
    [
        in_zone(WindowUnit::Hour, "UTC"),
        in_zone(WindowUnit::Day, "UTC"),
        in_zone(WindowUnit::Day, "Asia/Kolkata"),
        in_zone(WindowUnit::Week, "UTC"),
        in_zone(WindowUnit::Month, "Europe/Berlin"),
    ]
}

/// The setting, how many minutes the clock moves, the key, the limit, and whether what is reserved is kept.
type Step = (usize, i64, u8, u64, bool);

/// Start, end and units.
type Row = (Timestamp, Timestamp, u64);

async fn counts_like_the_table(open: Open, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut store = open();
    let settings = windows();
    let mut now = "2026-11-26T10:30:00Z".parse::<Timestamp>().unwrap();
    let mut table = HashMap::<u8, Row>::new();
    for (index, (setting, minutes, key, limit, keep)) in steps.iter().enumerate() {
        now += SignedDuration::from_mins(*minutes);
        let asked = settings[*setting].at(now);
        let row = table.entry(*key).or_insert((asked.start, asked.end, 0));
        if asked.start >= row.1 {
            // The window is over.
            *row = (asked.start, asked.end, 0);
        } else if asked.end > row.0 {
            // The setting was changed, and the units count on.
            *row = (row.0.max(asked.start), asked.end, row.2);
        }
        // Half of the settings come with a restart.
        if index % 8 == 7 {
            drop(store);
            store = open();
        }
        let name = counter("daily", &key.to_string());
        let reserved = store.reserve(name, asked, *limit).await.unwrap();
        let window = match reserved {
            Reservation::Granted {
                mut hold,
                used,
                window,
            } => {
                prop_assert!(row.2 < *limit);
                prop_assert_eq!(used, row.2 + 1);
                if *keep {
                    hold.commit().await.unwrap();
                    row.2 += 1;
                } else {
                    hold.release().await.unwrap();
                }
                window
            }
            Reservation::Exhausted { window } => {
                prop_assert!(row.2 >= *limit);
                window
            }
        };
        prop_assert_eq!((window.start, window.end), (row.0, row.1));
        prop_assert_eq!(used(&*store, &key.to_string(), asked).await, row.2);
    }
    Ok(())
}

/// Runs a test on random values, on a thread that has no runtime of its own.
fn run_all<S: Strategy + Send>(
    strategy: S,
    test: impl AsyncFn(S::Value) -> Result<(), TestCaseError> + Send,
) {
    let run = move || {
        let run = |value| System::new().block_on(test(value));
        let result = TestRunner::new(Config::with_cases(24)).run(&strategy, run);
        result.map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap()).unwrap();
}

async fn counters_follow_changed_windows_like_a_plain_table(backend: impl Backend + Send) {
    let minutes = prop_oneof![4 => 0..90_i64, 2 => 0..3000_i64, 1 => -3000..0_i64];
    let step = (0..5_usize, minutes, 0..2_u8, 1..4_u64, any::<bool>());
    run_all(prop::collection::vec(step, 1..40), async move |steps| {
        let open = empty(&backend).await;
        counts_like_the_table(open, &steps).await
    });
}

async fn an_hour_never_has_more_than_the_limit_whatever_the_window_was(
    backend: impl Backend + Send,
) {
    let step = (0..2_usize, prop_oneof![0..20_i64, 0..200_i64]);
    run_all(prop::collection::vec(step, 1..60), async move |steps| {
        let open = empty(&backend).await;
        let (store, settings) = (open(), windows());
        let mut now = "2026-11-26T10:30:00Z".parse::<Timestamp>().unwrap();
        let mut issued = HashMap::<Timestamp, u64>::new();
        for (setting, minutes) in steps {
            now += SignedDuration::from_mins(minutes);
            let asked = settings[setting].at(now);
            let reserved = store.reserve(counter("daily", "ws_1"), asked, 3).await;
            if let Reservation::Granted { mut hold, .. } = reserved.unwrap() {
                hold.commit().await.unwrap();
                let hour = issued.entry(settings[0].at(now).start).or_default();
                *hour += 1;
                prop_assert!(*hour <= 3, "at {now}");
            }
        }
        Ok(())
    });
}

async fn a_released_unit_is_given_back_after_the_window_was_lengthened(backend: impl Backend) {
    let open = empty(&backend).await;
    let (store, settings) = (open(), windows());
    let now = "2026-11-26T10:30:00Z".parse().unwrap();
    let reserve = async |setting: usize| {
        let asked = settings[setting].at(now);
        let reserved = store.reserve(counter("daily", "ws_1"), asked, LIMIT).await;
        match reserved.unwrap() {
            Reservation::Granted { hold, .. } => hold,
            Reservation::Exhausted { .. } => unreachable!("there is room"),
        }
    };
    let released = reserve(0).await;
    let _kept = reserve(1).await;
    released.release().await.unwrap();
    assert_eq!(used(&*store, "ws_1", settings[1].at(now)).await, 1);
}

#[actix_web::test]
async fn a_window_that_was_lengthened_at_half_past_ten_ends_at_midnight() {
    let file = Sqlite::new();
    let gate = with_window(&file.url(), "hour").start().await;
    let set = |time: &str| {
        let time: Timestamp = time.parse().unwrap();
        gate.clock.set(time);
        time
    };
    set("2026-11-26T10:30:00Z");
    issue(&gate, LIMIT).await;
    gate.reload(&with_window(&file.url(), "day")).unwrap();
    let midnight = "2026-11-27T00:00:00Z".parse().unwrap();
    let now = set("2026-11-26T10:30:00Z");
    is_used_up(&gate, now, midnight, DAY).await;
    // The hour in which they were counted is over, and the day is not.
    let now = set("2026-11-26T11:30:00Z");
    is_used_up(&gate, now, midnight, DAY).await;
    // A clock that is set back opens nothing, with neither setting.
    for window in ["hour", "day"] {
        gate.reload(&with_window(&file.url(), window)).unwrap();
        for earlier in ["2026-11-26T01:00:00Z", "2026-11-25T12:00:00Z"] {
            set(earlier);
            ask(&gate).await.assert_error(429, "quota_exhausted");
        }
    }
    set("2026-11-26T23:59:00Z");
    ask(&gate).await.assert_error(429, "quota_exhausted");
    set("2026-11-27T00:00:01Z");
    issue(&gate, LIMIT).await;
    ask(&gate).await.assert_error(429, "quota_exhausted");
}

/// Otherwise the row would be deleted too early, and a restart would open the window again.
#[actix_web::test]
async fn a_lengthened_window_is_written_to_the_disk_even_if_it_was_only_read_before() {
    let file = Sqlite::new();
    let gate = with_window(&file.url(), "hour").start().await;
    let now: Timestamp = "2026-11-02T10:30:00Z".parse().unwrap();
    gate.clock.set(now);
    issue(&gate, LIMIT).await;
    gate.reload(&with_window(&file.url(), "month")).unwrap();
    gate.manage("/quota/daily?key=user_1").await;
    ask(&gate).await.assert_error(429, "quota_exhausted");
    let database = file.connect();
    let end = end_of(WindowUnit::Month, now).as_second();
    eventually("the new end", async || {
        let stored = "SELECT window_end FROM quota_counters";
        let stored: i64 = database.query_row(stored, [], |row| row.get(0)).unwrap();
        stored == end
    })
    .await;
}

#[actix_web::test]
async fn a_window_that_was_shortened_counts_everything_until_it_ends() {
    let file = Sqlite::new();
    let gate = with_window(&file.url(), "day").start().await;
    gate.clock.set("2026-11-26T01:00:00Z".parse().unwrap());
    issue(&gate, LIMIT).await;
    let now = "2026-11-26T10:30:00Z".parse().unwrap();
    gate.clock.set(now);
    gate.reload(&with_window(&file.url(), "hour")).unwrap();
    let eleven = "2026-11-26T11:00:00Z".parse().unwrap();
    is_used_up(&gate, now, eleven, HOUR).await;
    gate.clock.set(eleven);
    issue(&gate, LIMIT).await;
    ask(&gate).await.assert_error(429, "quota_exhausted");
}
