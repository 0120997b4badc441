//! Warns about routes on which requests without sign-in may get tokens, although a policy of the route signs users in.

use policies::{Fact, Mode, PolicyName};

use super::{PolicySettings, RouteSettings, Settings};
use crate::config::document::Reader;

pub(super) fn warn(reader: &mut Reader, settings: &Settings) {
    for (index, route) in settings.routes.iter().enumerate() {
        let gaps = gaps(settings, route);
        if !gaps.is_empty() {
            let message = format!(
                "requests without sign-in may get tokens, because {}; also list a `signed_in` policy without `when` and \
                 `mode`",
                gaps.join(" and ")
            );
            reader.warning(format!("routes[{index}].policies"), message);
        }
    }
}

/// Why the policies that sign users in do not stop every request without a user. Empty if one of the route does.
fn gaps(settings: &Settings, route: &RouteSettings) -> Vec<String> {
    let policies = route.policies.iter();
    let policies = policies.filter_map(|name| Some((name, settings.policy(name)?)));
    let of_users: Vec<_> = policies
        .filter(|(_, policy)| policy.requirements.provides.is_some())
        .collect();
    // Without a user, a membership is denied as well.
    if of_users
        .iter()
        .any(|(_, policy)| policy.common.always_enforces())
    {
        return Vec::new();
    }
    let is_signed_in =
        |policy: &PolicySettings| policy.requirements.provides == Some(Fact::Subject);
    let signed_in: Vec<_> = of_users
        .into_iter()
        .filter(|(_, policy)| is_signed_in(policy))
        .collect();
    let is_enforced = |policy: &PolicySettings| policy.common.mode == Mode::Enforce;
    // The conditions of several policies may complement each other.
    if signed_in
        .iter()
        .filter(|(_, policy)| is_enforced(policy))
        .count()
        > 1
    {
        return Vec::new();
    }
    let gap = |(name, policy): (&PolicyName, &PolicySettings)| match policy.common.mode {
        Mode::Observe => format!("`{name}` has `mode = \"observe\"`"),
        Mode::Enforce => format!("`{name}` has a `when`"),
    };
    signed_in.into_iter().map(gap).collect()
}
