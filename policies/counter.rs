//! What a limit counts by.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv6Addr},
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Facts, UploadRequest};

/// Something to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The subject's id.
    User,
    /// The workspace.
    Workspace,
    /// The client's address; an IPv6 address counts as its /64.
    Ip,
    /// The declared purpose.
    Purpose,
    /// The route.
    Route,
}

/// What a limit counts by: one counter for each combination; none for one counter for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Dimension>")]
#[schemars(with = "Vec<Dimension>")]
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

impl TryFrom<Vec<Dimension>> for Per {
    type Error = &'static str;

    fn try_from(dimensions: Vec<Dimension>) -> Result<Self, Self::Error> {
        let doubled = dimensions
            .iter()
            .enumerate()
            .any(|(index, dimension)| dimensions[..index].contains(dimension));
        if doubled {
            Err("names a dimension twice")
        } else {
            Ok(Self(dimensions))
        }
    }
}

impl Per {
    /// Whether `dimension` is counted by.
    #[must_use]
    pub fn contains(&self, dimension: Dimension) -> bool {
        self.0.contains(&dimension)
    }

    /// The key of the counter that a request falls on: its parts, `%` and `/` escaped, joined by `/`. A
    /// part that the request lacks is empty, which no real one is.
    #[must_use]
    pub fn key(&self, request: &UploadRequest, facts: &Facts) -> String {
        let mut key = String::with_capacity(32);
        for (index, dimension) in self.0.iter().enumerate() {
            if index > 0 {
                key.push('/');
            }
            match dimension {
                Dimension::User => {
                    push_escaped(&mut key, facts.subject.as_ref().map(|s| s.id.as_str()));
                }
                Dimension::Workspace => {
                    let member_of = facts.membership.as_ref().map(|m| &m.workspace);
                    let workspace = member_of.or(request.workspace.as_ref());
                    push_escaped(&mut key, workspace.map(|w| w.as_str()));
                }
                Dimension::Ip => {
                    // Writing to a String cannot fail.
                    let _ = write!(key, "{}", network(request.ip));
                }
                Dimension::Purpose => {
                    push_escaped(&mut key, request.purpose.as_ref().map(|p| p.as_str()));
                }
                Dimension::Route => push_escaped(&mut key, Some(request.route.as_str())),
            }
        }
        key
    }
}

fn push_escaped(key: &mut String, part: Option<&str>) {
    for piece in part.unwrap_or_default().split_inclusive(['%', '/']) {
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

/// The address that is counted: one IPv4 address, or the /64 that one IPv6 customer has.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        ip => ip,
    }
}
