//! The choice of the identity against a model of it: many lists of identities, and tokens that address some of them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use serde_json::json;

use crate::{
    helpers::{self, Entry, Gate, TestApp, Token, env, introspection, settings, signed_in},
    service::{Reply, Service},
};

const ISSUERS: [&str; 3] = [
    "https://a.example",
    "https://b.example",
    "https://c.example",
];
const PLACES: [&str; 2] = ["bearer", "header:x-token"];

/// An identity of the model.
#[derive(Clone, Debug)]
struct Identity {
    name: String,
    /// `None` for an introspection.
    jwt: Option<Rules>,
    places: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Rules {
    algorithms: Vec<Algorithm>,
    /// Every issuer, if there is none.
    issuers: Vec<&'static str>,
}

/// A token of the model; `None` is an opaque token.
#[derive(Clone, Debug)]
struct Jwt {
    algorithm: Algorithm,
    issuer: Option<&'static str>,
    /// The identity whose secret signs it.
    signer: usize,
}

type Credential = Option<Jwt>;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    NotSignedIn,
    Invalid,
    Issued,
}

/// One identity for each combination of algorithms, issuers and places, and opaque tokens in each place.
fn identities() -> Vec<Identity> {
    let mut identities = Vec::new();
    let places = [&PLACES[..1], &PLACES[1..], &PLACES[..]];
    for places in places {
        let mut add = |jwt| {
            identities.push(Identity {
                name: format!("identity-{}", identities.len()),
                jwt,
                places: places.to_vec(),
            });
        };
        for algorithms in [
            &[Algorithm::HS256][..],
            &[Algorithm::HS256, Algorithm::HS512],
        ] {
            for issuers in [&ISSUERS[..0], &ISSUERS[..1], &ISSUERS[..2]] {
                add(Some(Rules {
                    algorithms: algorithms.to_vec(),
                    issuers: issuers.to_vec(),
                }));
            }
        }
        add(None);
    }
    identities
}

fn secret(identity: usize) -> String {
    format!("the secret of the identity number {identity:03}, 64 bytes long, for HS512 too")
}

impl Identity {
    fn section(&self, index: usize, issuer: &str) -> Entry {
        let Self { places, jwt, .. } = self;
        let entry = match jwt {
            None => introspection(&format!("{issuer}/introspect")),
            Some(rules) => {
                let names: Vec<_> = rules
                    .algorithms
                    .iter()
                    .map(|name| format!("{name:?}"))
                    .collect();
                let entry = helpers::jwt()
                    .set("algorithms", names)
                    .set("secret", env(&format!("SECRET_{index}")));
                match rules.issuers[..] {
                    [] => entry,
                    _ => entry.issuer(&rules.issuers),
                }
            }
        };
        entry.from(places)
    }
    fn is_jwt_addressed_by(&self, credential: &Credential) -> bool {
        let (Some(rules), Some(jwt)) = (&self.jwt, credential) else {
            return false;
        };
        rules.algorithms.contains(&jwt.algorithm)
            && (rules.issuers.is_empty()
                || jwt
                    .issuer
                    .is_some_and(|issuer| rules.issuers.contains(&issuer)))
    }
}

/// The identity of `accept` that judges, and what it judges; `None` if no identity is addressed.
fn judge<'a>(
    all: &[Identity],
    accept: &[usize],
    sent: &'a [(&'static str, Credential)],
) -> Option<(usize, &'a Credential)> {
    accept.iter().find_map(|index| {
        let identity = &all[*index];
        identity.places.iter().find_map(|place| {
            let (_, credential) = sent.iter().find(|(other, _)| other == place)?;
            let is_addressed = match identity.jwt {
                Some(_) => identity.is_jwt_addressed_by(credential),
                None => !accept.iter().any(|other| {
                    let other = &all[*other];
                    other.places.contains(place) && other.is_jwt_addressed_by(credential)
                }),
            };
            is_addressed.then_some((*index, credential))
        })
    })
}

fn verdict(all: &[Identity], accept: &[usize], sent: &[(&'static str, Credential)]) -> Verdict {
    let reads = |place: &&str| {
        accept
            .iter()
            .any(|index| all[*index].places.contains(place))
    };
    match judge(all, accept, sent) {
        Some((index, credential)) => match (&all[index].jwt, credential) {
            // The issuer of opaque tokens knows every token.
            (None, _) => Verdict::Issued,
            (Some(_), Some(jwt)) if jwt.signer == index => Verdict::Issued,
            _ => Verdict::Invalid,
        },
        None if sent.iter().any(|(place, _)| reads(place)) => Verdict::Invalid,
        None => Verdict::NotSignedIn,
    }
}

/// Adds these identities to a gate.
fn with_identities(gate: Gate, all: &[Identity], issuer: &str) -> Gate {
    let all = all.iter().enumerate();
    all.fold(gate, |gate, (index, identity)| {
        gate.identity(&identity.name, identity.section(index, issuer))
    })
}

/// Whether the gate accepts this list.
fn is_valid(all: &[Identity], accept: &[usize]) -> bool {
    let names: Vec<_> = accept.iter().map(|index| &all[*index].name).collect();
    let gate = with_identities(Gate::accepting(names), all, "https://x.example");
    let config = gate.config("https://x.example", std::path::Path::new("/nowhere"));
    let environment = |_: &str| Some("s".repeat(64));
    match settings::load("gate.toml", &config, &environment) {
        Ok(_) => true,
        Err(faults) => {
            let faults = faults.to_string();
            assert!(faults.contains("would never use"), "{faults}");
            false
        }
    }
}

#[test]
fn a_second_identity_is_refused_exactly_if_one_of_its_places_never_reaches_it() {
    let all = identities();
    let credentials: Vec<Credential> = [Algorithm::HS256, Algorithm::HS512]
        .into_iter()
        .flat_map(|algorithm| {
            let issuers = ISSUERS.into_iter().map(Some).chain([None]);
            issuers.map(move |issuer| {
                Some(Jwt {
                    algorithm,
                    issuer,
                    signer: 0,
                })
            })
        })
        .chain([None])
        .collect();
    for first in 0..all.len() {
        for second in (0..all.len()).filter(|second| *second != first) {
            let accept = [first, second];
            let judges_in = |place: &&'static str| {
                credentials.iter().any(|credential| {
                    let sent = [(*place, credential.clone())];
                    let judge = judge(&all, &accept, &sent);
                    judge.is_some_and(|(index, _)| index == second)
                })
            };
            assert_eq!(
                is_valid(&all, &accept),
                all[second].places.iter().all(judges_in),
                "{:?} {:?}",
                all[first],
                all[second]
            );
        }
    }
}

/// A gate with a route for each list.
async fn gate(all: &[Identity], service: &Service, lists: &[Vec<usize>]) -> TestApp {
    // All bad tokens come from one address.
    let failures = json!({ "limit": 1_000_000, "period": "1m" });
    let mut gate = with_identities(Gate::bare(), all, &service.url).server("failures", failures);
    for index in 0..all.len() {
        gate = gate.secret(&format!("SECRET_{index}"), &secret(index));
    }
    for (index, list) in lists.iter().enumerate() {
        let names: Vec<_> = list.iter().map(|index| &all[*index].name).collect();
        let policy = format!("accept-{index}");
        gate = gate
            .policy(&policy, signed_in(names))
            .route(&format!("/route-{index}"), [&policy]);
    }
    gate.start().await
}

async fn ask(app: &TestApp, route: usize, sent: &[(&'static str, Credential)]) -> Verdict {
    let path = format!("/route-{route}");
    let mut request = app.request(actix_web::http::Method::POST, &path);
    for (place, credential) in sent {
        let token = match credential {
            None => "opaque".to_owned(),
            Some(jwt) => {
                let mut token = Token::of("user_1");
                token.header = Header::new(jwt.algorithm);
                if let Some(issuer) = jwt.issuer {
                    token = token.with("iss", json!(issuer));
                }
                token.sign_with(&EncodingKey::from_secret(secret(jwt.signer).as_bytes()))
            }
        };
        request = match *place {
            "bearer" => request.bearer(&token),
            _ => request.header("x-token", &token),
        };
    }
    let answer = request.send().await;
    match (answer.status.as_u16(), answer.code()) {
        (200, _) => Verdict::Issued,
        (401, "invalid_credentials") => Verdict::Invalid,
        (401, "not_signed_in") => Verdict::NotSignedIn,
        _ => panic!("{answer:?}"),
    }
}

/// A token, which identities of `accept` sign more often than others.
fn credential(identities: usize) -> impl Strategy<Value = (Credential, Option<Index>)> {
    let algorithm = select(vec![
        Algorithm::HS256,
        Algorithm::HS256,
        Algorithm::HS512,
        Algorithm::HS384,
    ]);
    let issuer = option::weighted(0.8, select(ISSUERS.to_vec()));
    let jwt = (algorithm, issuer, 0..identities).prop_map(|(algorithm, issuer, signer)| Jwt {
        algorithm,
        issuer,
        signer,
    });
    (
        option::weighted(0.9, jwt),
        option::weighted(0.8, any::<Index>()),
    )
}

#[actix_web::test]
async fn the_first_addressed_identity_judges_and_a_token_that_addresses_none_is_refused() {
    let all = identities();
    let service = Service::start();
    let active = json!({ "active": true, "sub": "user_1" });
    service.answer("/introspect", Reply::json(&active));
    let mut runner = TestRunner::deterministic();
    let mut draw = |length| {
        let list = vec(0..all.len(), length);
        list.new_tree(&mut runner).unwrap().current()
    };
    // Each list is followed by the same list with one more identity.
    let mut lists: Vec<Vec<usize>> = Vec::new();
    while lists.len() < 60 {
        let longer = draw(2..5);
        let shorter = &longer[..longer.len() - 1];
        let is_set = longer.iter().all(|index| {
            let mut others = longer.iter();
            others.by_ref().filter(|other| *other == index).count() == 1
        });
        if is_set && is_valid(&all, &longer) {
            lists.push(shorter.to_vec());
            lists.push(longer);
        }
    }
    let app = gate(&all, &service, &lists).await;
    let mut seen = [0, 0, 0];
    for round in 0..900 {
        let route = round % (lists.len() / 2) * 2;
        let (shorter, longer) = (&lists[route], &lists[route + 1]);
        let places = vec(option::of(credential(all.len())), PLACES.len());
        let drawn = places.new_tree(&mut runner).unwrap().current();
        let sent: Vec<(&'static str, Credential)> = PLACES
            .into_iter()
            .zip(drawn)
            .filter_map(|(place, drawn)| {
                let (credential, of_list) = drawn?;
                let credential = credential.map(|jwt| Jwt {
                    signer: of_list.map_or(jwt.signer, |index| *index.get(longer)),
                    ..jwt
                });
                Some((place, credential))
            })
            .collect();
        let before = ask(&app, route, &sent).await;
        let after = ask(&app, route + 1, &sent).await;
        let shown = || format!("{sent:?} {:?}", longer.iter().map(|index| &all[*index]));
        assert_eq!(before, verdict(&all, shorter, &sent), "{}", shown());
        assert_eq!(after, verdict(&all, longer, &sent), "{}", shown());
        // Another identity at the end does not change what an earlier JWT identity judges. It only takes tokens that counted
        // as opaque before.
        let judges = judge(&all, shorter, &sent);
        if judges.is_some_and(|(index, _)| all[index].jwt.is_some()) {
            assert_eq!(before, after, "{}", shown());
        }
        let addressed = judges.is_some();
        if !addressed {
            assert_ne!(before, Verdict::Issued, "{}", shown());
        }
        seen[match (&before, addressed) {
            (Verdict::Issued, _) => 0,
            (_, true) => 1,
            (_, false) => 2,
        }] += 1;
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
