//! `imgwire-gate images`

use std::{io::Write as _, time::Duration};

use actix_web::http::Method;
use clap::{Args, Subcommand};
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    Config, Failure,
    management::{self, ManagementClient, aligned, encoded, plain},
    print,
};

/// Between two looks at a job.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Filter {
    /// The id of an image at Imgwire
    #[arg(long, value_name = "ID")]
    image: Option<String>,
    /// The id of an upload token
    #[arg(long, value_name = "ID")]
    token: Option<String>,
    /// A user
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// A workspace
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    /// The page, of 100 records each
    #[arg(long, value_name = "N", default_value_t = 1)]
    page: u64,
}

#[derive(Subcommand)]
pub(super) enum Images {
    /// Print all records as JSON, one on each line
    Export,
    /// Delete the images of a user at Imgwire, and all records of that user
    Erase {
        /// The user
        #[arg(long, value_name = "ID")]
        subject: String,
        /// Wait for the end of the job, and exit with 1 if it could not delete some images
        #[arg(long)]
        wait: bool,
    },
    /// Compare every record with its image at Imgwire, and correct what differs
    Reconcile {
        /// Wait for the end of the job, and exit with 1 if it could not read some images
        #[arg(long)]
        wait: bool,
    },
    /// Print the progress of an erasure or a reconciliation
    Job {
        /// The id that `erase` or `reconcile` printed
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Deserialize)]
struct Found {
    images: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image: Option<String>,
    token: Option<String>,
    subject: String,
    workspace: Option<String>,
    route: String,
    purpose: Option<String>,
    declared: File,
    real: File,
    state: String,
    created_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    mime_type: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Started {
    job: String,
}

#[derive(Deserialize)]
struct Progress {
    done: bool,
    checked: Option<u64>,
    deleted: u64,
    corrected: Option<u64>,
    failed: u64,
}

pub(super) fn images(
    config: &Config,
    filter: &Filter,
    command: Option<&Images>,
) -> Result<(), Failure> {
    let query = match (command, query(filter)) {
        (None, None) => {
            return Err(Failure::Other {
                text: "nothing to find".to_owned(),
                hint: Some(
                    "add --image, --token, --subject or --workspace; `images export` prints all records",
                ),
            });
        }
        (Some(_), Some(_)) => {
            let text =
                "--image, --token, --subject and --workspace find records, and have no subcommand";
            return Err(Failure::other(text));
        }
        (_, query) => query,
    };
    management::run(config, async |client| match (query, command) {
        (Some(query), _) => find(client, &query).await,
        (None, Some(Images::Erase { subject, wait })) => erase(client, subject, *wait).await,
        (None, Some(Images::Reconcile { wait })) => reconcile(client, *wait).await,
        (None, Some(Images::Job { id })) => {
            let progress = progress(client, id).await?;
            print(&describe(&progress))
        }
        (None, Some(Images::Export) | None) => client.stream("/images/export", write).await,
    })
}

/// `None` if the filter names nothing.
fn query(filter: &Filter) -> Option<String> {
    let values = [
        ("image", &filter.image),
        ("token", &filter.token),
        ("subject", &filter.subject),
        ("workspace", &filter.workspace),
    ];
    let values = values.iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        Some(format!("{name}={}&", encoded(value)))
    });
    let query: String = values.collect();
    (!query.is_empty()).then(|| format!("/images?{query}page={}", filter.page))
}

async fn find(client: &ManagementClient, path: &str) -> Result<(), Failure> {
    let Found { images } = client.json(Method::GET, path).await?;
    if images.is_empty() {
        return Err(Failure::other("no record on this page matches"));
    }
    let head = [
        "CREATED",
        "STATE",
        "IMAGE",
        "TOKEN",
        "SUBJECT",
        "WORKSPACE",
        "PURPOSE",
        "ROUTE",
        "DECLARED",
        "REAL",
    ];
    let rows = images.into_iter().map(Record::into_row);
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    print(&aligned(&rows))
}

impl Record {
    fn into_row(self) -> [String; 10] {
        let cell = |text: Option<String>| text.as_deref().map_or("-".to_owned(), plain);
        [
            plain(&self.created_at),
            plain(&self.state),
            cell(self.image),
            cell(self.token),
            plain(&self.subject),
            cell(self.workspace),
            cell(self.purpose),
            plain(&self.route),
            self.declared.into_cell(),
            self.real.into_cell(),
        ]
    }
}

impl File {
    fn into_cell(self) -> String {
        let size = self.size.map(|size| format!("{size} bytes"));
        let parts: Vec<_> = [self.mime_type.as_deref().map(plain), size]
            .into_iter()
            .flatten()
            .collect();
        match parts.is_empty() {
            true => "-".to_owned(),
            false => parts.join(", "),
        }
    }
}

fn write(part: &[u8]) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(part)
        .and_then(|()| output.flush())
        .map_err(|error| Failure::system("cannot write to standard output", &error))
}

async fn erase(client: &ManagementClient, subject: &str, wait: bool) -> Result<(), Failure> {
    let path = format!("/subjects/{}/images", encoded(subject));
    let Started { job } = client.json(Method::DELETE, &path).await?;
    follow(client, &job, wait, &ERASURE_FAILED).await
}

async fn reconcile(client: &ManagementClient, wait: bool) -> Result<(), Failure> {
    let Started { job } = client.json(Method::POST, "/images/reconcile").await?;
    follow(client, &job, wait, &RECONCILIATION_FAILED).await
}

/// What went wrong, and a hint.
type Failed = (&'static str, &'static str);

const ERASURE_FAILED: Failed = (
    "Imgwire did not delete some images",
    "the log of the gate has the reasons; erase the user again later",
);

const RECONCILIATION_FAILED: Failed = (
    "some images could not be read from Imgwire",
    "reconcile again later",
);

/// Prints the id of a job. Waits for its end if `wait` says so.
async fn follow(
    client: &ManagementClient,
    job: &str,
    wait: bool,
    (text, hint): &Failed,
) -> Result<(), Failure> {
    let job = plain(job);
    print(&format!("job {job}"))?;
    if !wait {
        return Ok(());
    }
    loop {
        let progress = progress(client, &job).await?;
        if !progress.done {
            sleep(POLL_INTERVAL).await;
            continue;
        }
        print(&describe(&progress))?;
        return match progress.failed {
            0 => Ok(()),
            _ => Err(Failure::Other {
                text: (*text).to_owned(),
                hint: Some(hint),
            }),
        };
    }
}

async fn progress(client: &ManagementClient, job: &str) -> Result<Progress, Failure> {
    client
        .json(Method::GET, &format!("/jobs/{}", encoded(job)))
        .await
}

fn describe(progress: &Progress) -> String {
    let done = if progress.done { "yes" } else { "no" };
    let number = |name: &str, number: u64| [name.to_owned(), number.to_string()];
    let rows = [
        Some(["done".to_owned(), done.to_owned()]),
        progress.checked.map(|checked| number("checked", checked)),
        Some(number("deleted", progress.deleted)),
        (progress.corrected).map(|corrected| number("corrected", corrected)),
        Some(number("failed", progress.failed)),
    ];
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    aligned(&rows)
}
