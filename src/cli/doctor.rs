//! `imgwire-gate doctor`

use std::{fmt::Write as _, io::Write as _, pin::pin, sync::Arc, time::Duration};

use anstyle::{AnsiColor, Effects, Style};
use futures_util::future::{join_all, join4};
use jiff::{SignedDuration, Timestamp};
use policies::{BuildError, Clock, Policy, PolicyName, StoreName, StoreUse, SystemClock};
use serde::Serialize;
use tokio::time::timeout;

use super::{Config, Failure, print, signals::stop};
use crate::{
    gate::rules::Rules,
    imgwire::audit::Audit,
    outbound::tls_config,
    server::{build::RulesBuilder, settings::Settings},
    stores::{FileProblem, OpenStore, StoreFault},
    telemetry::{Point, PointState},
};

/// How long one policy may take, in addition to its own limits.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The document that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    points: &'a [Point],
    /// Whether nothing failed.
    ok: bool,
}

/// Tries everything that the config leads to, and prints each point. Fails if a point failed.
pub(super) fn doctor(config: &Config, probe: bool, json: bool) -> Result<(), Failure> {
    let points = match load_and_diagnose(config, probe) {
        Ok(points) => points,
        Err(failure) => {
            if json {
                let remedy = "correct what the message names, and run it again";
                print_json(&[Point::failed("config", failure.text(), remedy)])?;
            }
            return Err(failure);
        }
    };
    let failed = points.iter().filter(|point| point.is_failed()).count();
    if json {
        print_json(&points)?;
    } else {
        print(&describe(&points))?;
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::other("1 point failed")),
        _ => Err(Failure::other(format!("{failed} points failed"))),
    }
}

fn load_and_diagnose(config: &Config, probe: bool) -> Result<Vec<Point>, Failure> {
    let settings = config.load()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    actix_web::rt::System::new().block_on(async {
        let diagnosis = diagnose(&settings, probe, &clock);
        if probe {
            uninterrupted(diagnosis).await
        } else {
            diagnosis.await.map_err(Failure::other)
        }
    })
}

fn print_json(points: &[Point]) -> Result<(), Failure> {
    let report = Report {
        points,
        ok: !points.iter().any(Point::is_failed),
    };
    print(&serde_json::to_string_pretty(&report).map_err(Failure::other)?)
}

/// Finishes despite a signal, because an upload may have to be deleted. A second signal ends it.
async fn uninterrupted(
    diagnosis: impl Future<Output = Result<Vec<Point>, BuildError>>,
) -> Result<Vec<Point>, Failure> {
    let mut diagnosis = pin!(diagnosis);
    tokio::select! {
        points = &mut diagnosis => return points.map_err(Failure::other),
        () = stop()? => {
            // A missing reader of it does not matter.
            let _ = writeln!(
                anstream::stderr(),
                "finishing, because an upload may have to be deleted; press ctrl-c again to stop at once"
            );
        }
    }
    tokio::select! {
        points = &mut diagnosis => points.map_err(Failure::other),
        () = stop()? => Err(Failure::other("interrupted")),
    }
}

/// Tries stores, policies, identities, the receiver of events and Imgwire. It consumes nothing that counts, and a running gate may have the same
/// config. With `probe`, it also tries an upload without a token, if the config has a Client Key.
pub async fn diagnose(
    settings: &Settings,
    probe: bool,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Point>, BuildError> {
    let tls = tls_config(&settings.authorities);
    let builder = RulesBuilder::new(settings, &tls, clock);
    let rules = builder.build_read_only(settings, true)?;
    let audit = Audit {
        settings: &settings.imgwire,
        api_key: &settings.api_key,
        client_key: settings.imgwire.client_key.as_ref(),
        probe,
        allowed_origins: &settings.server.allowed_origins,
        http: builder.http(),
        clock: &**clock,
    };
    let warnings = settings.warnings.lines().iter().map(|warning| {
        let remedy =
            "change the key that the message names, or leave it: the gate also runs with it";
        Point::warning("config", warning, remedy)
    });
    let events = async {
        let receiver = rules.receiver.as_ref()?;
        Some(receiver.try_out(builder.http()).await)
    };
    let (local, identities, events, imgwire) = join4(
        stores_and_policies(settings, &rules, &**clock),
        rules.identities.try_out(),
        events,
        audit.run(),
    )
    .await;
    let events = events.into_iter().collect();
    Ok([warnings.collect(), local, identities, events, imgwire].concat())
}

/// A query is not tried in a database that fails.
async fn stores_and_policies(settings: &Settings, rules: &Rules, clock: &dyn Clock) -> Vec<Point> {
    let stores = rules.stores.iter().filter(|store| store.is_used());
    let tried = join_all(stores.map(|store| try_store(store, clock))).await;
    let failed = tried
        .iter()
        .filter(|(_, points)| points.iter().any(Point::is_failed));
    let failed: Vec<_> = failed.map(|(name, _)| (*name).clone()).collect();
    let policies = rules.policies.iter().map(|(name, policy)| {
        let database = database(settings, name);
        let failed = database.filter(|database| failed.contains(database));
        try_policy(name, &**policy, database, failed)
    });
    let policies = join_all(policies).await.into_iter().flatten();
    let stores = tried.into_iter().flat_map(|(_, points)| points);
    stores.chain(policies).collect()
}

/// The database that a policy queries.
fn database<'a>(settings: &'a Settings, policy: &PolicyName) -> Option<&'a StoreName> {
    let requirements = &settings.policy(policy)?.requirements;
    let store = requirements.store.as_ref().map(|(store, _)| store);
    store.filter(|_| requirements.query.is_some())
}

async fn try_store<'a>(store: &'a OpenStore, clock: &dyn Clock) -> (&'a StoreName, Vec<Point>) {
    let section = format!("stores.{}", store.name);
    let points = match store.check().await {
        Ok(()) => {
            let uses = store.uses().map(|used| match used {
                StoreUse::Quotas => "quotas",
                StoreUse::RateLimits => "rate limits",
                StoreUse::Sessions => "sessions",
                StoreUse::Memberships => "memberships",
                StoreUse::Uploads => "records of uploads",
            });
            let uses: Vec<_> = uses.collect();
            let works = Point::ok("", format!("works for {}", uses.join(", ")));
            let mut points = vec![works];
            points.extend(store_clock(store, clock).await);
            let remarks = store.remarks().into_iter();
            points.extend(remarks.map(|remark| match remark.remedy {
                Some(remedy) => Point::warning(remark.part, remark.text, remedy),
                None => Point::ok(remark.part, remark.text),
            }));
            points
        }
        Err(StoreFault::File(FileProblem { problem, remedy })) => {
            vec![Point::failed("", problem, remedy)]
        }
        Err(fault) => {
            let remedy = store_remedy(store, &fault);
            vec![Point::failed("", fault.to_string(), remedy)]
        }
    };
    let points = points.into_iter().map(|point| point.within(&section));
    (&store.name, points.collect())
}

fn store_remedy(store: &OpenStore, fault: &StoreFault) -> String {
    let rights = store.rights();
    match fault {
        StoreFault::Refused(_) | StoreFault::Locked => rights.to_owned(),
        StoreFault::Down
        | StoreFault::File(_)
        | StoreFault::Unreachable(_)
        | StoreFault::Timeout
        | StoreFault::Unsent
        | StoreFault::Broken(_) => format!(
            "correct `url` and `password` in [stores.{}], and check that it runs and can be reached; if it refuses the \
             access: {rights}",
            store.name
        ),
    }
}

async fn store_clock(store: &OpenStore, clock: &dyn Clock) -> Option<Point> {
    let sent = clock.now();
    let time = store.time().await?;
    let received = clock.now();
    Some(match time {
        Ok(time) => Point::clock("clock", ahead(time, sent, received)),
        Err(fault) => Point::unknown(
            "clock",
            format!("cannot read the store's clock: {fault}"),
            "run it again; if it persists, look at the log of the store",
        ),
    })
}

/// How far a clock is ahead that was read between two of our times, at least.
fn ahead(time: Timestamp, sent: Timestamp, received: Timestamp) -> SignedDuration {
    if time > received {
        time.duration_since(received)
    } else if time < sent {
        time.duration_since(sent)
    } else {
        SignedDuration::ZERO
    }
}

/// `None` if the policy asks neither a service nor a database.
async fn try_policy(
    name: &PolicyName,
    policy: &dyn Policy,
    database: Option<&StoreName>,
    failed: Option<&StoreName>,
) -> Option<Point> {
    let part = format!("policies.{name}");
    if let Some(store) = failed {
        let cause = format!("stores.{store}");
        let (message, remedy) = (format!("needs {cause}"), format!("fix {cause} first"));
        return Some(Point::not_tried(part, message, remedy));
    }
    let message = match timeout(MAX_WAIT, policy.try_out()).await {
        Ok(Ok(message)) => return message.map(|message| Point::ok(part, message)),
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "no result in time".to_owned(),
    };
    let remedy = match database {
        Some(store) => format!(
            "correct `query` in [{part}]: it must run in the database of stores.{store}, return the role in the first \
             column and the workspace's id in the second, and find members only"
        ),
        None => format!(
            "correct `url` and `token` in [{part}]; if they are right, look at the log of the service and check the \
             network to it"
        ),
    };
    Some(Point::failed(part, message, remedy))
}

/// One line for each point, with its remedy below it, and a summary.
fn describe(points: &[Point]) -> String {
    const STATE_WIDTH: usize = 9;

    let part_width = points.iter().map(|point| point.part.len()).max();
    let part_width = part_width.unwrap_or_default();
    let mut text = String::new();
    for Point {
        part,
        state,
        message,
        remedy,
    } in points
    {
        let style = style(*state);
        let state = state.as_str();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{style}{state:STATE_WIDTH$}{style:#}  {part:part_width$}  {message}"
        );
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:STATE_WIDTH$}  remedy: {remedy}", "");
        }
    }
    let counts = PointState::ALL.into_iter().filter_map(|state| {
        let count = points.iter().filter(|point| point.state == state).count();
        (count > 0).then(|| format!("{count} {}", state.as_str()))
    });
    let counts: Vec<_> = counts.collect();
    text + &counts.join(", ")
}

fn style(state: PointState) -> Style {
    match state {
        PointState::Ok => AnsiColor::Green.on_default(),
        PointState::Warning | PointState::Unknown => AnsiColor::Yellow.on_default(),
        PointState::Failed => AnsiColor::Red.on_default().bold(),
        PointState::NotTried => Style::new().effects(Effects::DIMMED),
    }
}
