//! The windows of a quota: days that are longer or shorter, months of every length.

use jiff::{Timestamp, tz::TimeZone};
use policies::{Window, WindowUnit, Windows};
use proptest::prelude::*;

const UNITS: [WindowUnit; 4] = [
    WindowUnit::Hour,
    WindowUnit::Day,
    WindowUnit::Week,
    WindowUnit::Month,
];

#[track_caller]
fn assert_window(unit: WindowUnit, zone: &str, now: &str, start: &str, end: &str) {
    let windows = Windows::new(unit, TimeZone::get(zone).unwrap());
    let window = windows.at(now.parse().unwrap());
    assert_eq!(
        (window.start.to_string(), window.end.to_string()),
        (start.to_owned(), end.to_owned())
    );
}

#[test]
fn a_day_in_berlin_has_23_25_or_24_hours() {
    let zone = "Europe/Berlin";
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-03-29T12:00:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
    );
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-10-25T12:00:00Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T23:00:00Z",
    );
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-06-01T22:00:00Z",
        "2026-06-01T22:00:00Z",
        "2026-06-02T22:00:00Z",
    );
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-06-01T21:59:59Z",
        "2026-05-31T22:00:00Z",
        "2026-06-01T22:00:00Z",
    );
}

#[test]
fn a_day_in_new_york_and_one_on_lord_howe_follow_their_own_clocks() {
    let zone = "America/New_York";
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-03-08T12:00:00Z",
        "2026-03-08T05:00:00Z",
        "2026-03-09T04:00:00Z",
    );
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-11-01T12:00:00Z",
        "2026-11-01T04:00:00Z",
        "2026-11-02T05:00:00Z",
    );
    let zone = "Australia/Lord_Howe";
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-04-05T00:00:00Z",
        "2026-04-04T13:00:00Z",
        "2026-04-05T13:30:00Z",
    );
}

#[test]
fn a_day_without_midnight_starts_at_its_first_moment() {
    // In Santiago the clocks go from 24:00 to 1:00.
    let zone = "America/Santiago";
    assert_window(
        WindowUnit::Day,
        zone,
        "2026-09-06T12:00:00Z",
        "2026-09-06T04:00:00Z",
        "2026-09-07T03:00:00Z",
    );
}

#[test]
fn months_have_their_own_lengths() {
    for (zone, now, start, end) in [
        (
            "UTC",
            "2026-02-28T23:59:59Z",
            "2026-02-01T00:00:00Z",
            "2026-03-01T00:00:00Z",
        ),
        (
            "UTC",
            "2028-02-29T12:00:00Z",
            "2028-02-01T00:00:00Z",
            "2028-03-01T00:00:00Z",
        ),
        (
            "UTC",
            "2026-12-31T23:59:59Z",
            "2026-12-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
        (
            "Europe/Berlin",
            "2026-03-31T21:59:59Z",
            "2026-02-28T23:00:00Z",
            "2026-03-31T22:00:00Z",
        ),
        (
            "America/New_York",
            "2026-11-30T12:00:00Z",
            "2026-11-01T04:00:00Z",
            "2026-12-01T05:00:00Z",
        ),
    ] {
        assert_window(WindowUnit::Month, zone, now, start, end);
    }
}

#[test]
fn weeks_start_on_monday() {
    let zone = "Europe/Berlin";
    assert_window(
        WindowUnit::Week,
        zone,
        "2026-03-29T21:59:59Z",
        "2026-03-22T23:00:00Z",
        "2026-03-29T22:00:00Z",
    );
    assert_window(
        WindowUnit::Week,
        zone,
        "2026-03-30T00:00:00Z",
        "2026-03-29T22:00:00Z",
        "2026-04-05T22:00:00Z",
    );
}

#[test]
fn hours_start_at_minute_zero_of_the_time_zone() {
    assert_window(
        WindowUnit::Hour,
        "UTC",
        "2026-01-01T10:59:59Z",
        "2026-01-01T10:00:00Z",
        "2026-01-01T11:00:00Z",
    );
    assert_window(
        WindowUnit::Hour,
        "Asia/Kolkata",
        "2026-01-01T10:10:00Z",
        "2026-01-01T09:30:00Z",
        "2026-01-01T10:30:00Z",
    );
}

fn window(start: &str, end: &str) -> Window {
    let time = |time: &str| format!("2026-11-{time}:00Z").parse().unwrap();
    Window {
        start: time(start),
        end: time(end),
    }
}

#[test]
fn a_counter_starts_at_zero_in_the_next_window_and_stays_in_a_later_one() {
    let (ten, eleven) = (
        window("26T10:00", "26T11:00"),
        window("26T11:00", "26T12:00"),
    );
    assert_eq!(ten.follow(5, ten), (ten, 5));
    assert_eq!(ten.follow(5, eleven), (eleven, 0));
    assert_eq!(eleven.follow(5, ten), (eleven, 5));
}

#[test]
fn a_counter_counts_on_in_a_window_of_another_setting() {
    let (hour, day) = (
        window("26T10:00", "26T11:00"),
        window("26T00:00", "27T00:00"),
    );
    // Its start never goes back, so a clock that is set back to the morning opens no window.
    let rest = window("26T10:00", "27T00:00");
    assert_eq!(hour.follow(5, day), (rest, 5));
    assert_eq!(rest.follow(5, day), (rest, 5));
    let morning = window("26T01:00", "26T02:00");
    assert_eq!(rest.follow(5, morning), (rest, 5));
    assert_eq!(day.follow(5, hour), (hour, 5));
    let in_kolkata = window("25T18:30", "26T18:30");
    assert_eq!(
        day.follow(5, in_kolkata),
        (window("26T00:00", "26T18:30"), 5)
    );
}

proptest! {
    #[test]
    fn a_moment_is_in_its_window_and_the_next_window_begins_at_its_end(
        second in -2_000_000_000_i64..5_000_000_000,
        unit in prop::sample::select(&UNITS[1..]),
        zone in prop::sample::select(&["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"][..]),
    ) {
        let windows = Windows::new(unit, TimeZone::get(zone).unwrap());
        let now = Timestamp::from_second(second).unwrap();
        let window = windows.at(now);
        prop_assert!(window.start <= now && now < window.end);
        prop_assert_eq!(windows.at(window.start), window);
        prop_assert_eq!(windows.at(window.end).start, window.end);
        let last = Timestamp::from_second(window.end.as_second() - 1).unwrap();
        prop_assert_eq!(windows.at(last), window);
    }

    #[test]
    fn windows_of_an_hour_never_go_back(
        second in 0_i64..3_000_000_000,
        later in 0_i64..10_000,
        zone in prop::sample::select(&["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"][..]),
    ) {
        let windows = Windows::new(WindowUnit::Hour, TimeZone::get(zone).unwrap());
        let at = |second| windows.at(Timestamp::from_second(second).unwrap());
        let window = at(second);
        prop_assert!(window.start.as_second() <= second && second < window.end.as_second());
        prop_assert!(window.start <= at(second + later).start);
    }
}
