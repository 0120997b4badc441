//! Drives a contender with wrk and reads the kernel's accounts of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::engines::Engine;

/// A kernel tick, in microseconds: USER_HZ is 100 on Linux.
const TICK_US: f64 = 10_000.0;

/// What the contender is driven with.
pub(crate) struct Load {
    pub(crate) delay_ms: u64,
    pub(crate) connections: usize,
}

impl Load {
    /// An upstream that is far away, and few who ask: what one of them waits for.
    pub(crate) const FAR: Self = Self {
        delay_ms: 50,
        connections: 16,
    };

    /// What is measured: how much it can do, and how much it adds to a real upstream.
    pub(crate) const ALL: [Self; 2] = [
        Self {
            delay_ms: 0,
            connections: 64,
        },
        Self {
            delay_ms: 20,
            connections: 512,
        },
    ];
}

/// What was measured.
pub(crate) struct Measurement {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_us: f64,
    pub(crate) failed: u64,
}

/// A contender that runs, with its upstream; both end when it is dropped.
pub(crate) struct Running {
    pub(crate) contender: Child,
    pub(crate) upstream: Child,
    pub(crate) engine: Option<Engine>,
    pub(crate) url: String,
    pub(crate) upstream_url: String,
    pub(crate) script: PathBuf,
}

/// Requests beside the load, until it is dropped.
pub(crate) struct Flood(Child);

impl Flood {
    /// Sends the tokens of `script` for as long as it lives, ten minutes at most.
    pub(crate) fn start(script: &Path, url: &str) -> Self {
        let flood = Command::new("wrk")
            .args(["-t", "1", "-c", "4", "-d", "600s", "-s"])
            .arg(script)
            .arg(url)
            .stdout(Stdio::null())
            .spawn();
        Self(flood.expect("wrk is installed: apt-get install wrk"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Drives it for some seconds.
    pub(crate) fn drive(&self, load: &Load, seconds: u64) -> Measurement {
        let cpu_before = self.cpu_us();
        let output = Command::new("wrk")
            .args(["-t", "1", "--latency", "--timeout", "10s"])
            .args(["-c", &load.connections.to_string()])
            .args(["-d", &format!("{seconds}s")])
            .arg("-s")
            .arg(&self.script)
            .arg(&self.url)
            .output()
            .expect("wrk is installed: apt-get install wrk");
        let cpu = self.cpu_us() - cpu_before;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests = number_before(&text, " requests in");
        Measurement {
            per_second: value_after(&text, "Requests/sec:"),
            p50_ms: milliseconds(&text, "50%"),
            p99_ms: milliseconds(&text, "99%"),
            cpu_us: cpu / requests,
            failed: failures(&text),
        }
    }

    /// How often the upstream's published keys were fetched.
    pub(crate) fn fetches(&self) -> String {
        let curl = Command::new("curl")
            .args(["-sS", &format!("{}/fetches", self.upstream_url)])
            .output();
        String::from_utf8_lossy(&curl.expect("curl is installed").stdout).into_owned()
    }

    /// The most memory it has had.
    pub(crate) fn peak_mb(&self) -> f64 {
        let status = read(format!("/proc/{}/status", self.contender.id()));
        value_after(&status, "VmHWM:") / 1024.0
    }

    /// User and system time so far, of the contender and its threads.
    fn cpu_us(&self) -> f64 {
        cpu_us(&self.contender)
    }
}

/// User and system time so far, of a process and its threads.
pub(crate) fn cpu_us(process: &Child) -> f64 {
    let stat = read(format!("/proc/{}/stat", process.id()));
    // Fields 14 and 15; the second, in parentheses, may have blanks.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) * TICK_US
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.contender, &mut self.upstream] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The value in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn value_after(text: &str, label: &str) -> f64 {
    let rest = text.split(label).nth(1).unwrap_or_default();
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or(f64::NAN)
}

fn number_before(text: &str, label: &str) -> f64 {
    let before = text.split(label).next().unwrap_or_default();
    let word = before.split_whitespace().last().unwrap_or_default();
    word.parse().unwrap_or(f64::NAN)
}

fn milliseconds(text: &str, label: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(label));
    let word = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or_default();
    let (number, factor) = if let Some(number) = word.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = word.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (word.trim_end_matches('s'), 1000.0)
    };
    number
        .parse::<f64>()
        .map_or(f64::NAN, |number| number * factor)
}

/// Answers other than 2xx and 3xx, and sockets that failed.
fn failures(text: &str) -> u64 {
    let refused = value_after(text, "Non-2xx or 3xx responses:");
    let sockets = text.lines().find(|line| line.contains("Socket errors:"));
    let sockets: u64 = sockets
        .into_iter()
        .flat_map(|line| line.split([' ', ',']))
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    sockets + if refused.is_nan() { 0 } else { refused as u64 }
}
