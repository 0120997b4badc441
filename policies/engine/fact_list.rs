//! The list of all facts of a request.
//!
//! Expressions, remote policies and the cache of their responses read this list. Expressions may use exactly its names.

use crate::{
    Clock, Facts, UploadRequest,
    engine::fact_ref::{FactRef, Group},
    similar,
};

/// Builds the list and passes it to `read`. Facts without a source have names but no values. The list borrows
/// everything and lives on the stack, so each reader builds its own.
pub(crate) fn list<T>(
    request: Option<&UploadRequest>,
    known: Option<&Facts>,
    clock: Option<&dyn Clock>,
    read: impl FnOnce(Group<'_>) -> T,
) -> T {
    use FactRef::{Address, Claims, Flag, Size, Text, Time};

    let subject = known.and_then(|known| known.subject.as_deref());
    let claims = subject.map(|subject| &subject.claims);
    let subject_facts = [
        ("id", subject.map(|subject| Text(subject.id.as_str()))),
        ("identity", subject.map(|s| Text(s.identity.as_str()))),
        ("session", subject.map(|subject| Flag(subject.session))),
        ("claims", Some(Claims(claims))),
    ];

    let member = known.and_then(|known| known.membership.as_ref());
    let role = member.and_then(|member| member.role.as_deref());
    let workspace_facts = [
        ("id", member.map(|member| Text(member.workspace.as_str()))),
        ("role", role.map(Text)),
    ];

    let file = request.and_then(|request| request.file.as_ref());
    let name = file.and_then(|file| file.name.as_deref());
    let mime_type = file.and_then(|file| file.mime_type.as_deref());
    let file_facts = [
        ("name", name.map(Text)),
        ("mime_type", mime_type.map(Text)),
        ("size", file.and_then(|file| file.size).map(Size)),
    ];

    let workspace = request.and_then(|request| request.workspace.as_ref());
    let purpose = request.and_then(|request| request.purpose.as_ref());
    let request_facts = [
        ("workspace", workspace.map(|id| Text(id.as_str()))),
        ("purpose", purpose.map(|purpose| Text(purpose.as_str()))),
        ("route", request.map(|request| Text(request.route.as_str()))),
        ("ip", request.map(|request| Address(request.ip))),
        ("time", clock.map(Time)),
        ("file", group(file.is_some(), &file_facts)),
    ];

    read(Group {
        is_known: true,
        all: &[
            ("request", group(request.is_some(), &request_facts)),
            ("subject", group(subject.is_some(), &subject_facts)),
            ("workspace", group(member.is_some(), &workspace_facts)),
        ],
    })
}

fn group<'a>(
    is_known: bool,
    all: &'a [(&'static str, Option<FactRef<'a>>)],
) -> Option<FactRef<'a>> {
    Some(FactRef::Group(Group { is_known, all }))
}

/// Checks that `path` leads to a fact. The error says which name is unknown, and which names exist.
pub(crate) fn check_path(path: &[&str]) -> Result<(), String> {
    list(None, None, None, |all| {
        let mut fact = Some(FactRef::Group(all));
        for (depth, name) in path.iter().enumerate() {
            let group = match fact {
                Some(FactRef::Group(group)) => group,
                Some(FactRef::Claims(_)) => return Ok(()),
                _ => {
                    let so_far = path[..depth].join(".");
                    return Err(format!("`{so_far}` has no fields; remove `.{name}`"));
                }
            };
            let named = group.named(name);
            (_, fact) = named.ok_or_else(|| {
                let names: Vec<_> = group.all.iter().map(|(name, _)| *name).collect();
                if let Some(known) = similar(name, &names) {
                    return match path[..depth].join(".").as_str() {
                        "" => format!("unknown fact `{name}`; did you mean `{known}`?"),
                        so_far => {
                            format!("`{so_far}` has no field `{name}`; did you mean `{known}`?")
                        }
                    };
                }
                let names = names.join("`, `");
                match path[..depth].join(".").as_str() {
                    "" => format!("unknown fact `{name}`; write one of `{names}`"),
                    so_far => format!("`{so_far}` has no field `{name}`; it has `{names}`"),
                }
            })?;
        }
        Ok(())
    })
}

/// Returns the paths of all facts, for the JSON Schema of the config.
pub(crate) fn paths() -> Vec<String> {
    fn below(name: &str, fact: Option<FactRef<'_>>) -> Vec<String> {
        match fact {
            Some(FactRef::Group(group)) => {
                let facts = group.all.iter();
                let paths = facts.flat_map(|(field, fact)| below(field, *fact));
                paths.map(|path| format!("{name}.{path}")).collect()
            }
            Some(FactRef::Claims(_)) => vec![format!("{name}.*")],
            _ => vec![name.to_owned()],
        }
    }
    list(None, None, None, |all| {
        let variables = all.all.iter();
        variables
            .flat_map(|(name, fact)| below(name, *fact))
            .collect()
    })
}
