//! The builds that are compared, and the flags that make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::flags::Flags;
use crate::shell::{failed, output, succeed};

/// What is built in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The program of the hot paths.
    HotPaths,
    Collector,
}

impl Subject {
    /// The name of its executable.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::HotPaths => "hot_paths",
            Self::Collector => "spanwire-collector",
        }
    }

    /// The file of its profile. Each has its own, so that what one does often is nothing to the other.
    pub(super) const fn profile(self) -> &'static str {
        match self {
            Self::HotPaths => "spanwire.profdata",
            Self::Collector => "collector.profdata",
        }
    }

    /// What cargo is asked to build.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            // Without the rivals a build takes a minute, and none of them is asked about here.
            Self::HotPaths => {
                &["-p", "spanwire-benches", "--no-default-features", "--bin", "hot_paths"]
            }
            Self::Collector => &["-p", "spanwire-collector", "--bin", "spanwire-collector"],
        }
    }
}

/// One way to build.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    folder: &'static str,
    profile: &'static str,
    native: bool,
    pub(super) profile_guided: bool,
}

impl Variant {
    /// What the others are compared with: `cargo build --release`.
    pub(super) const RELEASE: Self = Self {
        name: "release",
        folder: "release",
        profile: "release",
        native: false,
        profile_guided: false,
    };

    const LTO: Self = Self { name: "LTO", folder: "lto", profile: "bench", ..Self::RELEASE };

    const LTO_NATIVE: Self =
        Self { name: "LTO, native", folder: "lto-native", native: true, ..Self::LTO };

    pub(super) const LTO_PGO: Self =
        Self { name: "LTO + PGO", folder: "lto-pgo", profile_guided: true, ..Self::LTO };

    const LTO_PGO_NATIVE: Self =
        Self { name: "LTO + PGO, native", folder: "lto-pgo-native", native: true, ..Self::LTO_PGO };

    /// Each of them; those that need the profile come last.
    pub(super) const ALL: [Self; 5] =
        [Self::RELEASE, Self::LTO, Self::LTO_NATIVE, Self::LTO_PGO, Self::LTO_PGO_NATIVE];

    /// Those that run on any processor of the platform.
    pub(super) const PORTABLE: [Self; 3] = [Self::RELEASE, Self::LTO, Self::LTO_PGO];

    /// Its target folder, so that no build throws another's away: a profile is of one subject.
    fn folder(&self, subject: Subject) -> String {
        match subject {
            Subject::Collector if self.profile_guided => format!("{}-collector", self.folder),
            Subject::Collector | Subject::HotPaths => self.folder.to_owned(),
        }
    }
}

/// Builds of one workspace by one compiler.
pub(super) struct Build {
    root: PathBuf,
    folder: PathBuf,
    /// What `rustc -vV` says.
    pub(super) rustc: String,
    pub(super) host: String,
    flags: Flags,
}

impl Build {
    pub(super) fn new(root: &Path, folder: &Path) -> Result<Self, String> {
        let rustc = output(Command::new("rustc").arg("-vV").current_dir(root))?;
        let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("`rustc -vV` names no host")?.to_owned();
        let flags = Flags::of_caller()?;
        Ok(Self { root: root.to_path_buf(), folder: folder.to_path_buf(), rustc, host, flags })
    }

    /// The subject built this way.
    pub(super) fn variant(
        &self,
        subject: Subject,
        variant: &Variant,
        profile: &Path,
    ) -> Result<PathBuf, String> {
        let name = variant.folder(subject);
        let folder = self.folder.join(&name);
        if variant.profile_guided && folder.exists() {
            // Cargo knows the profile's path only, and would keep what an earlier profile made.
            fs::remove_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
        }
        let mut own = Vec::new();
        if variant.native {
            own.push("-Ctarget-cpu=native".to_owned());
        }
        if variant.profile_guided {
            own.push(format!("-Cprofile-use={}", profile.display()));
        }
        self.build(subject, &name, variant.profile, &own)
    }

    /// The subject, which writes its profile into this folder when it ends.
    pub(super) fn instrumented(
        &self,
        subject: Subject,
        profiles: &Path,
    ) -> Result<PathBuf, String> {
        let own = format!("-Cprofile-generate={}", profiles.display());
        self.build(subject, "instrumented", Variant::LTO_PGO.profile, &[own])
    }

    /// The load generator as people build it: it is the same beside each collector.
    pub(super) fn generator(&self) -> Result<PathBuf, String> {
        self.load(&Variant::RELEASE, &[])
    }

    /// The programs that somebody may want with LTO and the profile of the hot paths: they and the
    /// load generator.
    pub(super) fn optimised(&self, profile: &Path) -> Result<[PathBuf; 2], String> {
        let own = format!("-Cprofile-use={}", profile.display());
        let load = self.load(&Variant::LTO_PGO, &[own])?;
        Ok([load.with_file_name(Subject::HotPaths.name()), load])
    }

    fn load(&self, variant: &Variant, own: &[String]) -> Result<PathBuf, String> {
        const NAME: &str = "spanwire-load";
        let mut build = self.cargo(variant.folder, variant.profile, own);
        succeed(build.args(["-p", NAME, "--bin", NAME]))?;
        Ok(self.built(variant.folder).join(NAME))
    }

    fn build(
        &self,
        subject: Subject,
        folder: &str,
        profile: &str,
        own: &[String],
    ) -> Result<PathBuf, String> {
        succeed(self.cargo(folder, profile, own).args(subject.arguments()))?;
        Ok(self.built(folder).join(subject.name()))
    }

    fn cargo(&self, folder: &str, profile: &str, own: &[String]) -> Command {
        let mut cargo = crate::cargo(&["build", "--locked", "--profile", profile], &[]);
        cargo.arg("--target-dir").arg(self.folder.join(folder));
        // With a target named, the flags are not those of build scripts and procedural macros, which
        // would write profiles of themselves.
        cargo.args(["--target", &self.host]).current_dir(&self.root);
        self.flags.give(&mut cargo, own);
        cargo
    }

    /// Where cargo leaves programs, by either profile.
    fn built(&self, folder: &str) -> PathBuf {
        self.folder.join(folder).join(&self.host).join("release")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_folders_of_their_own() {
        let mut folders: Vec<String> =
            Variant::ALL.iter().map(|variant| variant.folder(Subject::HotPaths)).collect();
        folders.sort_unstable();
        folders.dedup();
        assert_eq!(folders.len(), Variant::ALL.len());
        let guided = Variant::LTO_PGO.folder(Subject::Collector);
        assert!(!folders.contains(&guided), "another profile's builds are there");
    }
}
