//! `kind = "api_keys"`: programs that sign in with a key of their own.

use std::{collections::BTreeMap, sync::Arc};

use imgwire_gate::{
    identities::{
        AuthRequest, Authentication, Build, Identity, IdentityKind, Place, Profile, SecretString,
        Section, TokenSource,
    },
    policies::{Claims, Denial, IdentityName, SecretSource, Subject, SubjectId},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Programs that sign in with a key of their own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeys {
    /// Where a program sends its key, for example `["header:X-Api-Key"]`.
    #[schemars(length(min = 1))]
    from: Vec<TokenSource>,
    /// The key of each program, by the program's subject id.
    keys: BTreeMap<SubjectId, SecretSource>,
}

impl IdentityKind for ApiKeys {
    const NAME: &'static str = "api_keys";

    fn profile(&self) -> Profile<'_> {
        Profile {
            places: self.from.iter().map(Place::from).collect(),
            ..Profile::default()
        }
    }

    fn resolve(self: Arc<Self>, section: &mut Section<'_>) -> Option<Build> {
        section.check_from(&self.from, true);
        if self.keys.is_empty() {
            section.fault("keys", "must have the key of at least one program");
        }
        let mut keys = Vec::new();
        for (program, source) in &self.keys {
            let key = section.secret(&format!("keys.{program}"), source, 16);
            keys.extend(key.map(|key| (program.clone(), key)));
        }
        let keys: Arc<[_]> = keys.into();
        Some(Box::new(move |context| {
            Arc::new(Programs {
                name: context.name().clone(),
                from: self.from.clone(),
                keys: keys.clone(),
            })
        }))
    }
}

/// Finds the program of a key.
struct Programs {
    name: IdentityName,
    from: Vec<TokenSource>,
    keys: Arc<[(SubjectId, SecretString)]>,
}

impl Identity for Programs {
    fn authenticate<'a>(&'a self, request: &'a AuthRequest<'_>) -> Authentication<'a> {
        Box::pin(async move {
            let Some((token, ())) = request.find_token(&self.from, true, |_, _| Some(()))? else {
                return Ok(None);
            };
            let Some((program, _)) = self.keys.iter().find(|(_, key)| token.is(key)) else {
                let reason = "no program has this key".to_owned();
                return Err(Denial::InvalidCredentials(reason).into());
            };
            Ok(Some(Arc::new(Subject {
                id: program.clone(),
                identity: self.name.clone(),
                session: false,
                claims: Claims::new(),
                expires_at: None,
            })))
        })
    }

    fn token_sources(&self) -> &[TokenSource] {
        &self.from
    }
}
