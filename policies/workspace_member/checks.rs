//! Checks of the keys against each other.

use std::collections::BTreeMap;

use super::WorkspaceMemberSettings;
use crate::{Findings, engine::sql_columns::selects_one_column, excerpt};

const NO_SECOND_COLUMN: &str = "the query selects one column, so the database does not name the workspace: \
    if it accepts several spellings of an id, each spelling has its own limits; \
    select the workspace's id as the second column";

impl WorkspaceMemberSettings {
    pub(super) fn check_keys(&self, findings: &mut Findings) {
        let places = [
            ("claim", self.claim.is_some()),
            ("members", self.members.is_some()),
            ("url", self.url.is_some()),
            ("query", self.query.is_some()),
        ];
        let mut set = places.iter().filter(|(_, is_set)| *is_set);
        match (set.next(), set.next()) {
            (Some(_), None) => {}
            (None, _) => {
                let message = "needs the source of memberships; write one of `claim`, `members`, `url` and `query`";
                return findings.fault("", message);
            }
            (Some((first, _)), Some((second, _))) => {
                let message = format!(
                    "conflicts with `{first}`; write only one of `claim`, `members`, `url` and `query`"
                );
                return findings.fault(second, message);
            }
        }
        if self
            .members
            .as_ref()
            .is_some_and(|members| members.is_empty())
        {
            findings.fault(
                "members",
                "must name at least one workspace with its members",
            );
        }
        let is_asked_for = self.url.is_some() || self.query.is_some();
        if self.cache.is_some() && !is_asked_for {
            findings.fault("cache", "is only for `url` and `query`; remove it");
        }
        if self.token.is_some() && self.url.is_none() {
            findings.fault("token", "is only for `url`; remove it");
        }
        if self.store.is_some() && self.query.is_none() {
            findings.fault(
                "store",
                "is only for `query`; add `query`, or remove `store`",
            );
        }
        if self.query.is_some() && self.store.is_none() {
            findings.fault(
                "query",
                "needs the database that it asks; write its name as `store`",
            );
        }
        self.check_roles(findings);
        self.check_claim_keys(findings);
        if let Some(query) = &self.query {
            if ["$1", "$2"]
                .iter()
                .any(|parameter| !query.contains(parameter))
            {
                let message = "must contain `$1`, the user's id, and `$2`, the workspace's id";
                findings.fault("query", message);
            }
            if selects_one_column(query) {
                findings.warning("query", NO_SECOND_COLUMN);
            }
        }
    }

    /// Each role must be one that somebody may have.
    fn check_roles(&self, findings: &mut Findings) {
        let Some(roles) = &self.roles else { return };
        if roles.is_empty() {
            let message = "`roles` must name at least one role; leave it out to allow every member";
            findings.fault("", message);
        }
        let Some(members) = &self.members else { return };
        let is_known = |role: &&String| {
            members
                .values()
                .flat_map(BTreeMap::values)
                .any(|of| of == *role)
        };
        let (known, unknown): (Vec<_>, Vec<_>) = roles.iter().partition(is_known);
        for role in unknown {
            let message = format!("no entry of `members` has the role `{}`", excerpt(role));
            match known.is_empty() {
                true => findings.fault("roles", message),
                false => findings.warning("roles", message),
            }
        }
    }

    /// Keys for a claim require a claim, and each role comes from one place.
    fn check_claim_keys(&self, findings: &mut Findings) {
        let Self {
            id_key,
            role_key,
            role_claim,
            ..
        } = self;
        let mut fault = |message: &str| findings.fault("", message);
        let Some(claimed) = self.claimed() else {
            let keys = [
                (id_key.is_some(), "`id_key` requires `claim`"),
                (role_key.is_some(), "`role_key` requires `claim`"),
                (role_claim.is_some(), "`role_claim` requires `claim`"),
            ];
            for (_, message) in keys.into_iter().filter(|(is_set, _)| *is_set) {
                fault(message);
            }
            return;
        };
        if role_claim.is_none() && claimed.id_key.is_same(&claimed.role_key) {
            fault("`id_key` and `role_key` must differ");
        }
        if role_key.is_some() && role_claim.is_some() {
            fault("`role_key` and `role_claim` cannot be combined");
        }
        if role_claim
            .as_ref()
            .is_some_and(|role| role.is_same(&claimed.claim))
        {
            fault("`role_claim` and `claim` must differ");
        }
    }
}
