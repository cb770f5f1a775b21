//! `pillion-proxy redirect`: the rules that lead a network namespace's traffic to its sidecar.
//!
//! [`settings`] (text → checked) → [`rules`] (what is wanted, the same for every backend) → [`nft`] or [`iptables`]
//! (written as text, compared with what the kernel lists) → [`tool`] (runs the system's programs).

mod iptables;
mod listing;
mod nft;
mod rules;
pub mod settings;
mod tool;

use self::{
    settings::{Backend, Raw, Settings, Task},
    tool::Fault,
};

/// Why it did not do what it was told, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Every fault of the settings; nothing was done.
    Settings(Vec<String>),
    /// What failed, or what a check found.
    Failed(Vec<String>),
}

/// Does what the command line says, in the network namespace of this process; gives what there is to say about it.
///
/// # Errors
/// See [`Failure`].
pub async fn run(raw: Raw) -> Result<String, Failure> {
    let (settings, task) = settings::check(raw).map_err(Failure::Settings)?;
    match task {
        Task::DryRun => Ok(dry_run(&settings)),
        Task::Install => install(&settings).await,
        Task::Check => check(&settings).await,
        Task::Remove => remove(settings.backend).await,
    }
    .map_err(Failure::Failed)
}

/// What would be loaded where nothing is yet.
fn dry_run(settings: &Settings) -> String {
    match settings.backend {
        Backend::Auto | Backend::Nft => nft::script(settings),
        Backend::Iptables => iptables::dry_run(settings),
    }
}

async fn install(settings: &Settings) -> Result<String, Vec<String>> {
    let one = |fault: Fault| vec![fault.to_string()];
    match settings.backend {
        Backend::Nft => nft::install(settings).await.map_err(one)?,
        Backend::Iptables => return iptables_instead(settings).await.map_err(one),
        Backend::Auto => {
            if let Err(refused) = nft::install(settings).await {
                return match iptables_instead(settings).await {
                    Ok(said) => Ok(format!("{said}; not by nft: {refused}")),
                    Err(fault) => Err(vec![refused.to_string(), fault.to_string()]),
                };
            }
        }
    }
    // Only now: at no moment is traffic without any rules.
    match iptables::remove().await {
        Ok(removed) if removed.is_empty() => Ok("redirected by nft".into()),
        Ok(removed) => Ok(format!("redirected by nft; removed: {}", removed.join(", "))),
        Err(fault) if fault.is_missing() => Ok("redirected by nft".into()),
        // It does what it should nevertheless: the kernel asks nft's chains first.
        Err(fault) => {
            Ok(format!("redirected by nft; whether iptables holds rules, too, is not known: {fault}"))
        }
    }
}

async fn iptables_instead(settings: &Settings) -> Result<String, Fault> {
    let said = iptables::install(settings).await?;
    match nft::remove().await {
        Ok(true) => Ok(format!("{said}; removed: {}", nft::HOLDER)),
        // Where nft does not work, it has not loaded anything before either.
        Ok(false) | Err(_) => Ok(said),
    }
}

async fn check(settings: &Settings) -> Result<String, Vec<String>> {
    let (by_nft, by_iptables) = (nft::differences(settings).await, iptables::differences(settings).await);
    let mut note = String::new();
    let by_nft = match (by_nft, &by_iptables) {
        // As an installation falls back to iptables: where nft does not work, it has not loaded anything.
        (Err(fault), Ok(Some(differences)))
            if settings.backend != Backend::Nft && !fault.is_missing() && differences.is_empty() =>
        {
            note = format!("; not by nft: {fault}");
            Ok(None)
        }
        (found, _) => found,
    };
    let mut faults = Vec::new();
    // A program that is not there holds nothing, as far as anybody can tell.
    let mut known = |found: Result<Option<Vec<String>>, Fault>, asked: bool| match found {
        Ok(found) => found,
        Err(fault) if fault.is_missing() && !asked => None,
        Err(fault) => {
            faults.push(fault.to_string());
            None
        }
    };
    let by_nft = known(by_nft, settings.backend == Backend::Nft);
    let by_iptables = known(by_iptables, settings.backend == Backend::Iptables);
    let all_known = faults.is_empty();
    let wanted = match (settings.backend, &by_nft) {
        (Backend::Nft, _) | (Backend::Auto, Some(_)) => Backend::Nft,
        (Backend::Iptables, _) | (Backend::Auto, None) => Backend::Iptables,
    };
    let (holding, other) = match wanted {
        Backend::Iptables => (by_iptables, by_nft.map(|_| nft::HOLDER)),
        _ => (by_nft, by_iptables.map(|_| iptables::HOLDER)),
    };
    if let Some(other) = other {
        faults.push(format!("{other} holds rules that are not asked for"));
    }
    let name = if wanted == Backend::Iptables { "iptables" } else { "nft" };
    match holding {
        Some(differences) => {
            faults.extend(differences.into_iter().map(|difference| format!("{name}: {difference}")));
        }
        None if !all_known => {}
        None if settings.backend == Backend::Auto => {
            faults.push("nothing is redirected: there are no rules".into());
        }
        None => faults.push(format!("nothing is redirected by {name}: there are no rules")),
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let passed = match wanted {
        Backend::Iptables => iptables::udp_passed().await,
        _ => nft::udp_passed().await,
    };
    let [arrived, left] = passed.map_err(|fault| vec![fault.to_string()])?;
    Ok(format!(
        "redirected by {name}, exactly as asked{note}; UDP passed by: {left} packets sent, {arrived} received"
    ))
}

async fn remove(backend: Backend) -> Result<String, Vec<String>> {
    let (mut removed, mut faults, mut missing) = (Vec::new(), Vec::new(), 0);
    let mut failed = |fault: Fault, asked: bool| {
        missing += usize::from(fault.is_missing());
        if !fault.is_missing() || asked {
            faults.push(fault.to_string());
        }
    };
    if backend != Backend::Iptables {
        match nft::remove().await {
            Ok(true) => removed.push(nft::HOLDER.to_owned()),
            Ok(false) => {}
            Err(fault) => failed(fault, backend == Backend::Nft),
        }
    }
    if backend != Backend::Nft {
        match iptables::remove().await {
            Ok(chains) => removed.extend(chains),
            Err(fault) => failed(fault, backend == Backend::Iptables),
        }
    }
    if missing == 2 {
        faults.push("neither nft nor iptables is installed".into());
    }
    match (faults.is_empty(), removed.is_empty()) {
        (false, _) => Err(faults),
        (true, true) => Ok("there was nothing to remove".into()),
        (true, false) => Ok(format!("removed: {}", removed.join(", "))),
    }
}
