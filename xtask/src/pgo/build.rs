//! The builds that are compared, and the flags that make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::flags::Flags;
use crate::shell::{failed, output, succeed};

/// One way to build the program of the hot paths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Its target folder, so that no build throws another's away.
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

    /// The program of the hot paths, built this way.
    pub(super) fn variant(&self, variant: &Variant, profile: &Path) -> Result<PathBuf, String> {
        let folder = self.folder.join(variant.folder);
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
        self.hot_paths(variant.folder, variant.profile, &own)
    }

    /// The program of the hot paths, which writes its profile into this folder when it ends.
    pub(super) fn instrumented(&self, profiles: &Path) -> Result<PathBuf, String> {
        let own = format!("-Cprofile-generate={}", profiles.display());
        self.hot_paths("instrumented", Variant::LTO_PGO.profile, &[own])
    }

    /// The programs that somebody may want with LTO and the profile: the hot paths and the load
    /// generator.
    pub(super) fn optimised(&self, profile: &Path) -> Result<Vec<PathBuf>, String> {
        let variant = Variant::LTO_PGO;
        let own = format!("-Cprofile-use={}", profile.display());
        let mut build = self.cargo(variant.folder, variant.profile, &[own]);
        succeed(build.args(["-p", "spanwire-load", "--bin", "spanwire-load"]))?;
        let built = self.built(variant.folder);
        Ok(["hot_paths", "spanwire-load"].map(|name| built.join(name)).into())
    }

    fn hot_paths(&self, folder: &str, profile: &str, own: &[String]) -> Result<PathBuf, String> {
        let mut build = self.cargo(folder, profile, own);
        // Without the rivals a build takes a minute, and none of them is asked about here.
        build.args(["-p", "spanwire-benches", "--no-default-features", "--bin", "hot_paths"]);
        succeed(&mut build)?;
        Ok(self.built(folder).join("hot_paths"))
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
        let mut folders: Vec<&str> = Variant::ALL.iter().map(|variant| variant.folder).collect();
        folders.sort_unstable();
        folders.dedup();
        assert_eq!(folders.len(), Variant::ALL.len());
    }
}
