//! The code's imports, held against `docs/architecture.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::{
    Attribute, File, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module by its path from the crate's root: one for each file.
type Module = Vec<String>;

#[test]
fn folders_use_only_the_folders_that_the_page_on_architecture_lists() {
    let crate_files = Files::of("src");
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for (from, to) in crate_files.arrows() {
        if let (Some(from), Some(to)) = (from.first(), to.first())
            && from != to
        {
            found.entry(from.clone()).or_default().insert(to.clone());
        }
    }
    let listed = listed_arrows();
    assert_eq!(found, listed, "left: the code, right: docs/architecture.md");
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    for folder in ["src", "policies"] {
        let cycle = cycle(&Files::of(folder).arrows());
        assert_eq!(cycle, None, "{folder}");
    }
}

#[test]
fn cycles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let arrow = |from, to| (module(from), module(to));
    let chain = BTreeSet::from([arrow("a", "b"), arrow("b", "c"), arrow("a", "c")]);
    assert_eq!(cycle(&chain), None);
    let mut ring = chain;
    ring.insert(arrow("c", "a"));
    assert!(cycle(&ring).is_some());
}

/// The block of the page whose lines read `folder -> folder folder ...`.
fn listed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string("docs/architecture.md").unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    let mut arrows = BTreeMap::new();
    for line in blocks.flat_map(str::lines) {
        if let Some((from, to)) = line.split_once(" -> ")
            && !to.contains("->")
        {
            let to = to.split_whitespace().map(str::to_owned).collect();
            arrows.insert(from.trim().to_owned(), to);
        }
    }
    assert!(!arrows.is_empty(), "the page has a block of arrows");
    arrows
}

/// The modules that are part of a cycle, if there is one: those that remain after all that use none, and all that
/// none uses, are removed again and again.
fn cycle(arrows: &BTreeSet<(Module, Module)>) -> Option<BTreeSet<Module>> {
    let mut arrows = arrows.clone();
    loop {
        let users: BTreeSet<_> = arrows.iter().map(|(from, _)| from.clone()).collect();
        let used: BTreeSet<_> = arrows.iter().map(|(_, to)| to.clone()).collect();
        let before = arrows.len();
        arrows.retain(|(from, to)| used.contains(from) && users.contains(to));
        if arrows.is_empty() {
            return None;
        }
        if arrows.len() == before {
            return Some(users);
        }
    }
}

/// The files of a crate, and what each imports.
struct Files(BTreeMap<Module, Imports>);

impl Files {
    fn of(folder: &str) -> Self {
        let mut files = BTreeMap::new();
        let root = Path::new(folder);
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with("tests") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let module = module_of(path.strip_prefix(root).unwrap());
                    let text = std::fs::read_to_string(&path).unwrap();
                    let file: File = syn::parse_file(&text).unwrap();
                    let mut imports = Imports {
                        module: module.clone(),
                        ..Imports::default()
                    };
                    imports.visit_file(&file);
                    files.insert(module, imports);
                }
            }
        }
        Self(files)
    }

    /// Which file uses which, through all re-exports.
    fn arrows(&self) -> BTreeSet<(Module, Module)> {
        let mut arrows = BTreeSet::new();
        for (module, imports) in &self.0 {
            for path in &imports.used {
                let target = self.defined_in(path, 0);
                if target != *module {
                    arrows.insert((module.clone(), target));
                }
            }
        }
        arrows
    }

    /// The file that defines what `path` names.
    fn defined_in(&self, path: &[String], depth: usize) -> Module {
        let length = (0..=path.len())
            .rev()
            .find(|length| self.0.contains_key(&path[..*length]));
        let (module, rest) = path.split_at(length.unwrap_or_default());
        let (Some(name), Some(imports)) = (rest.first(), self.0.get(module)) else {
            return module.to_vec();
        };
        assert!(depth < 10, "re-exports go in circles at {path:?}");
        // A macro is exported under the path that it has.
        let exported = imports
            .exported
            .iter()
            .filter(|exported| exported[..] != *path);
        for exported in exported {
            match exported.last() {
                Some(last) if last == name => {
                    let path = [exported, &rest[1..]].concat();
                    return self.defined_in(&path, depth + 1);
                }
                Some(last) if last == "*" => {
                    let path = [&exported[..exported.len() - 1], rest].concat();
                    let target = self.defined_in(&path, depth + 1);
                    let defines = |imports: &Imports| imports.defined.contains(name);
                    if self.0.get(&target).is_some_and(defines) {
                        return target;
                    }
                }
                _ => {}
            }
        }
        module.to_vec()
    }
}

fn module_of(path: &Path) -> Module {
    let path = path.with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    let mut module: Module = names.collect();
    if module
        .last()
        .is_some_and(|last| ["mod", "lib"].contains(&last.as_str()))
    {
        module.pop();
    }
    module
}

/// What the code of a file imports, tests excepted, as paths from the crate's root.
#[derive(Default)]
struct Imports {
    module: Module,
    used: BTreeSet<Vec<String>>,
    exported: BTreeSet<Vec<String>>,
    /// The names of the file's items.
    defined: BTreeSet<String>,
}

impl Imports {
    /// `None` for a path into another crate.
    fn path_from_root(&self, path: &[String], relative: bool) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|name| *name == "super").count();
                let parent = &self.module[..self.module.len().saturating_sub(supers)];
                Some([parent, &path[supers..]].concat())
            }
            _ if relative => Some([&self.module, path].concat()),
            _ => None,
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item;
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.defined.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        for path in paths(&item.tree) {
            // A public `use` of the crate's own module may leave out `self`.
            let Some(path) = self.path_from_root(&path, is_public && item.leading_colon.is_none())
            else {
                continue;
            };
            if is_public && path.starts_with(&self.module) {
                self.exported.insert(path);
            } else {
                self.used.insert(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        let names: Vec<_> = names.collect();
        if let Some(path) = self.path_from_root(&names, false)
            && names.len() > 1
        {
            self.used.insert(path);
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

/// The paths that a tree of `use` names.
fn paths(tree: &UseTree) -> Vec<Vec<String>> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let rest = paths(&path.tree).into_iter();
            rest.map(|rest| [vec![first.clone()], rest].concat())
                .collect()
        }
        UseTree::Name(name) if name.ident == "self" => vec![Vec::new()],
        UseTree::Name(name) => vec![vec![name.ident.to_string()]],
        UseTree::Rename(rename) => vec![vec![rename.ident.to_string()]],
        UseTree::Glob(_) => vec![vec!["*".to_owned()]],
        UseTree::Group(group) => group.items.iter().flat_map(paths).collect(),
    }
}
