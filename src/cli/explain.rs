//! `imgwire-gate explain` and `imgwire-gate test`

use std::{path::Path, sync::Arc};

use policies::SystemClock;

use super::{
    Config, Failure,
    described::{self, Case},
    print, read,
};
use crate::{
    http::management::explain::{ExplainedOutcome, Explanation},
    server::inspector::Inspector,
};

/// Explains a described request. A gate that runs with the same config is not affected.
pub(super) fn explain(config: &Config, request: &Path) -> Result<(), Failure> {
    let text = read(request)?;
    let described = described::request(&request.display().to_string(), &text)?;
    let settings = config.load()?;
    actix_web::rt::System::new().block_on(async {
        let inspector = Inspector::new(&settings, true, Arc::new(SystemClock::new()))
            .map_err(Failure::other)?;
        let explanation = inspector.explain(described).await;
        let explanation = explanation
            .map_err(|error| Failure::Config(format!("{}: {error}", request.display())))?;
        print(describe(&explanation).trim_end())
    })
}

fn describe(explanation: &Explanation) -> String {
    let mut text = format!("POST {}: {}\n", explanation.route, outcome(explanation));
    for (index, policy) in explanation.policies.iter().enumerate() {
        let reason = policy.reason.as_ref();
        text.push_str(&format!(
            "  {}. {} ({}): {}{} [{} us]\n",
            index + 1,
            policy.name,
            policy.kind,
            policy.verdict,
            reason.map_or_else(String::new, |reason| format!(": {reason}")),
            policy.micros
        ));
    }
    text
}

fn outcome(explanation: &Explanation) -> String {
    match explanation.code {
        None => "allow".to_owned(),
        Some(code) if explanation.outcome == ExplainedOutcome::Fault => {
            format!("fault, {} {code}", explanation.status)
        }
        Some(code) => format!("deny, {} {code}", explanation.status),
    }
}

/// Tests the chains with a file of cases. All counters are empty.
pub(super) fn test(config: &Config, cases: &Path) -> Result<(), Failure> {
    let text = read(cases)?;
    let cases = described::cases(&cases.display().to_string(), &text)?;
    let settings = config.load()?;
    actix_web::rt::System::new().block_on(async {
        let inspector = Inspector::new(&settings, false, Arc::new(SystemClock::new()))
            .map_err(Failure::other)?;
        let mut failures = Vec::new();
        let count = cases.len();
        for Case {
            name,
            expect,
            request,
        } in cases
        {
            match inspector.explain(request).await {
                Err(error) => failures.push(format!("{name}: {error}")),
                Ok(explanation) => {
                    let found = explanation.code.unwrap_or("allow");
                    if found != expect {
                        failures.push(format!(
                            "{name}: expected {expect}, found {}",
                            describe(&explanation).trim_end()
                        ));
                    }
                }
            }
        }
        print(&format!(
            "{} passed, {} failed",
            count - failures.len(),
            failures.len()
        ))?;
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Failure::other(failures.join("\n")))
        }
    })
}
