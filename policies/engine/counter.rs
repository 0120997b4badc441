//! Counters, and their keys: what a limit counts by.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv6Addr},
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Fact, Facts, PolicyName, SubjectId, UploadRequest, WorkspaceId};

/// Identifies a counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The policy that the counter belongs to.
    pub policy: PolicyName,
    /// The key within the policy, from [`Per::key`].
    pub key: String,
}

/// A property of requests that a limit can count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The id of the user.
    User,
    /// The workspace, if the user is a member of it. Otherwise the user.
    Workspace,
    /// The address of the client. An IPv6 address counts as its /64 network.
    Ip,
    /// The purpose that the client declares.
    Purpose,
    /// The path of the route.
    Route,
}

/// The properties that a limit counts by. Each combination of their values has its own counter. Without any, all
/// requests share one counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Dimension>")]
#[schemars(with = "Vec<Dimension>")]
#[schemars(extend("examples" = [["user"]]))]
pub struct Per(Vec<Dimension>);

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, others)) = self.0.split_last() else {
            return f.write_str("for all together");
        };
        f.write_str("per ")?;
        for dimension in others {
            write!(f, "{} and ", dimension.name())?;
        }
        f.write_str(last.name())
    }
}

impl Dimension {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Workspace => "workspace",
            Self::Ip => "address",
            Self::Purpose => "purpose",
            Self::Route => "route",
        }
    }
}

/// The properties that a limit of storage counts by: only those that the record of an upload has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Holder>")]
#[schemars(with = "Vec<Holder>")]
#[schemars(extend("examples" = [["workspace"]]))]
pub struct PerHolder(pub(crate) Per);

/// A property of the record of an upload.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Holder {
    /// The id of the user.
    User,
    /// The workspace.
    Workspace,
}

impl From<Holder> for Dimension {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::User => Self::User,
            Holder::Workspace => Self::Workspace,
        }
    }
}

impl TryFrom<Vec<Holder>> for PerHolder {
    type Error = &'static str;

    fn try_from(holders: Vec<Holder>) -> Result<Self, Self::Error> {
        let dimensions = holders.into_iter().map(Dimension::from);
        dimensions.collect::<Vec<_>>().try_into().map(Self)
    }
}

impl TryFrom<Vec<Dimension>> for Per {
    type Error = &'static str;

    fn try_from(dimensions: Vec<Dimension>) -> Result<Self, Self::Error> {
        let doubled = dimensions
            .iter()
            .enumerate()
            .any(|(index, dimension)| dimensions[..index].contains(dimension));
        if doubled {
            Err("must not list a dimension twice")
        } else {
            Ok(Self(dimensions))
        }
    }
}

impl Per {
    /// Whether the limit counts by `dimension`.
    #[must_use]
    pub fn contains(&self, dimension: Dimension) -> bool {
        self.0.contains(&dimension)
    }

    /// Returns the facts that earlier policies must provide.
    pub(crate) fn needs(&self) -> Vec<Fact> {
        let needs = [
            (Dimension::User, Fact::Subject),
            (Dimension::Workspace, Fact::Membership),
        ];
        let needed = needs.into_iter().filter(|(by, _)| self.contains(*by));
        needed.map(|(_, fact)| fact).collect()
    }

    /// Returns the key of a request's counter: its parts, with `%` and `/` escaped, joined by `/`. A part that the
    /// request lacks is empty.
    ///
    /// A workspace counts only if a membership was found. Otherwise a client could use up the limit of any workspace
    /// that it names, so the request counts under its user, or under its address if no user is signed in.
    #[must_use]
    pub fn key(&self, request: &UploadRequest, facts: &Facts) -> String {
        let subject = facts.subject.as_ref().map(|subject| &subject.id);
        let workspace = facts.membership.as_ref();
        let workspace = workspace.map(|membership| &membership.workspace);
        self.key_of(subject, workspace, Some(request))
    }

    /// The key of [`Per::key`], for what is known of the request.
    pub(crate) fn key_of(
        &self,
        subject: Option<&SubjectId>,
        workspace: Option<&WorkspaceId>,
        request: Option<&UploadRequest>,
    ) -> String {
        let mut key = String::with_capacity(32);
        for (index, dimension) in self.0.iter().enumerate() {
            if index > 0 {
                key.push('/');
            }
            let subject = subject.map(SubjectId::as_str);
            match (dimension, request) {
                (Dimension::User, _) => push_escaped(&mut key, subject.unwrap_or_default()),
                (Dimension::Workspace, _) => match (workspace, subject) {
                    (Some(workspace), _) => push_escaped(&mut key, workspace.as_str()),
                    // No escaped text contains such a `%`, so no workspace has these keys.
                    (None, Some(subject)) => {
                        key.push_str("%user:");
                        push_escaped(&mut key, subject);
                    }
                    (None, None) => {
                        key.push_str("%ip:");
                        if let Some(request) = request {
                            push_network(&mut key, request.ip);
                        }
                    }
                },
                (Dimension::Ip, Some(request)) => push_network(&mut key, request.ip),
                (Dimension::Purpose, Some(request)) => {
                    let purpose = request.purpose.as_ref().map(|purpose| purpose.as_str());
                    push_escaped(&mut key, purpose.unwrap_or_default());
                }
                (Dimension::Route, Some(request)) => {
                    push_escaped(&mut key, request.route.as_str());
                }
                (_, None) => {}
            }
        }
        key
    }

    /// Names the counter of a request by its dimensions, for the log. The values are those of [`Per::key`].
    pub(crate) fn describe_key(&self, request: &UploadRequest, facts: &Facts) -> String {
        let subject = facts.subject.as_ref().map(|subject| subject.id.as_str());
        let user = |id: Option<&str>| named("user", id.unwrap_or_default());
        let parts = self.0.iter().map(|dimension| match dimension {
            Dimension::User => user(subject),
            Dimension::Workspace => match (&facts.membership, subject) {
                (Some(membership), _) => named("workspace", membership.workspace.as_str()),
                (None, Some(subject)) => user(Some(subject)),
                (None, None) => address_key(request.ip),
            },
            Dimension::Ip => address_key(request.ip),
            Dimension::Purpose => {
                let purpose = request.purpose.as_ref().map(|purpose| purpose.as_str());
                named("purpose", purpose.unwrap_or_default())
            }
            Dimension::Route => named("route", request.route.as_str()),
        });
        let parts: Vec<_> = parts.collect();
        match parts.is_empty() {
            true => "all".to_owned(),
            false => parts.join(","),
        }
    }
}

fn push_escaped(key: &mut String, part: &str) {
    for piece in part.split_inclusive(['%', '/']) {
        match piece.as_bytes() {
            [.., b'%'] => {
                key.push_str(piece);
                key.push_str("25");
            }
            [plain @ .., b'/'] => {
                key.push_str(&piece[..plain.len()]);
                key.push_str("%2F");
            }
            _ => key.push_str(piece),
        }
    }
}

fn push_network(key: &mut String, ip: IpAddr) {
    // Writing to a String cannot fail.
    let _ = write!(key, "{}", network(ip));
}

/// Returns the address that limits count: an IPv4 address as it is, and an IPv6 address as its /64 network, because one
/// customer usually has a /64.
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        ip => ip,
    }
}

/// Ids have at most 255 bytes, and no control characters.
fn named(dimension: &str, value: &str) -> String {
    format!("{dimension}={}", value.replace(',', "%2C"))
}

fn address_key(ip: IpAddr) -> String {
    match network(ip) {
        IpAddr::V6(network) => format!("ip={network}/64"),
        ip => format!("ip={ip}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_as_limits_count_it() {
        let key = |ip: &str| address_key(ip.parse().expect("the text is an address"));
        assert_eq!(key("192.0.2.1"), "ip=192.0.2.1");
        assert_eq!(key("2001:db8::1:2"), "ip=2001:db8::/64");
    }
}
