//! The documents of `-f`: files, folders, standard input.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::Failure;
use crate::resource::{
    Fault,
    text::{self, Format, Written},
};

/// One document and the file it is in.
pub(super) struct Source {
    file: String,
    written: Written,
}

/// All documents of `-f`, in the order of the command line and, in a folder, of the names.
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Reads everything.
    ///
    /// # Errors
    /// Files that cannot be read; else every file that is neither YAML nor JSON, with its place.
    pub(super) fn read(arguments: &[PathBuf]) -> Result<Self, Failure> {
        let mut documents = Vec::new();
        let mut faults = Vec::new();
        for argument in arguments {
            for file in files(argument)? {
                let name =
                    if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
                let text =
                    read(&file).map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
                let json = file.extension().is_some_and(|extension| extension == "json");
                match text::read(&text, if json { Format::Json } else { Format::Yaml }) {
                    Ok(read) => {
                        documents
                            .extend(read.into_iter().map(|written| Source { file: name.clone(), written }));
                    }
                    Err(fault) => faults.push(placed(&name, (fault.line, fault.column), &fault)),
                }
            }
        }
        if !faults.is_empty() {
            return Err(Failure::Faults(faults));
        }
        if documents.is_empty() {
            return Err(Failure::Usage("there is no document in what -f names".into()));
        }
        Ok(Self(documents))
    }

    /// The documents, as one body for the server.
    pub(super) fn to_list(&self) -> serde_json::Value {
        let items: Vec<_> = self.0.iter().map(|source| source.written.value.clone()).collect();
        serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items })
    }

    /// The documents as they were read.
    pub(super) fn written(&self) -> impl Iterator<Item = &Written> {
        self.0.iter().map(|source| &source.written)
    }

    /// The server's faults with the files and lines they are in, and in that order; first those that are of none.
    pub(super) fn place(&self, faults: &[Fault]) -> Vec<String> {
        let place = |fault: &Fault| match fault.index.and_then(|index| self.0.get(index)) {
            Some(source) => {
                let place = source.written.position(&fault.field);
                ((fault.index, place), placed(&source.file, place.unzip(), fault))
            }
            None => ((None, None), fault.to_string()),
        };
        let mut faults: Vec<_> = faults.iter().map(place).collect();
        faults.sort_by_key(|(place, _)| *place);
        faults.into_iter().map(|(_, text)| text).collect()
    }
}

fn placed(file: &str, place: (Option<u64>, Option<u64>), fault: &Fault) -> String {
    match place {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}: {fault}"),
        _ => format!("{file}: {fault}"),
    }
}

fn files(argument: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !argument.is_dir() {
        return Ok(vec![argument.to_owned()]);
    }
    let failed = |error| Failure::Usage(format!("cannot read {}: {error}", argument.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(argument).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let wanted = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|it| extension == *it));
        if wanted && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_in_the_order_of_the_files() {
        let text = "spec:\n  b: 1\n  a: 2\n---\nspec:\n  c: 3\n";
        let written = text::read(text, Format::Yaml).expect("it is YAML");
        let sources = written.into_iter().map(|written| Source { file: "x.yaml".into(), written });
        let sources = Sources(sources.collect());
        let fault = |index, field: &str| Fault { index, ..Fault::new(field, "is wrong") };
        let faults = [
            fault(Some(1), "spec.c"),
            fault(Some(0), "spec.a"),
            fault(None, "spec.d"),
            fault(Some(0), "spec.b"),
        ];
        assert_eq!(
            sources.place(&faults),
            [
                "spec.d: is wrong",
                "x.yaml:2:6: spec.b: is wrong",
                "x.yaml:3:6: spec.a: is wrong",
                "x.yaml:6:6: spec.c: is wrong"
            ]
        );
    }
}
