//! A choice of kernel made by hand, as text: for experiments and for tests of every family.
//!
//! `"small"`, `"streamed"`, `"teams"`, `"planes"`, `"tile"` or `"hopper"`, and after it `name=number` for what shall
//! not be chosen: `"small splits=4 cluster=1"`, `"tile splits=2"`, `"hopper rows=64
//! splits=2"`.

use super::streamed::Streamed;
use super::teams::Teams;
use super::{Config, Family, Hopper, Problem, Reduce, Small, Tile, choose};
use crate::error::{Error, Result};

/// The names and numbers after the family.
struct Options<'a> {
    text: &'a str,
    given: Vec<(&'a str, u64)>,
}

impl<'a> Options<'a> {
    fn parse(text: &'a str, words: impl Iterator<Item = &'a str>) -> Result<Self> {
        let given = words
            .map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name, value.parse().ok()?))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| refused(text, "options are written name=number"))?;
        Ok(Self { text, given })
    }

    /// Replaces `value` if the option was given.
    fn take(&mut self, name: &str, value: &mut u64) {
        self.given.retain(|&(given, number)| {
            if given == name {
                *value = number;
            }
            given != name
        });
    }

    /// Refuses what nobody took.
    fn finish(self) -> Result<()> {
        match self.given.first() {
            Some((name, _)) => Err(refused(self.text, &format!("there is no option {name}"))),
            None => Ok(()),
        }
    }
}

fn refused(text: &str, reason: &str) -> Error {
    Error::Config { config: text.to_owned(), reason: reason.to_owned() }
}

impl Config {
    /// The kernel that `text` asks for, or the one of [`choose`] for `"auto"`.
    ///
    /// # Errors
    /// Text that names no kernel, or a kernel that cannot compute this problem.
    pub fn requested(text: &str, p: &Problem) -> Result<Self> {
        let mut words = text.split_whitespace();
        let family = words.next().unwrap_or_default();
        let mut options = Options::parse(text, words)?;
        let unfit = || refused(text, "it does not fit this shape, type or GPU");
        let config = match family {
            "auto" => choose(p),
            "streamed" => {
                let chosen = Small::choose_streamed(p).ok_or_else(unfit)?.options;
                let mut o = Streamed { stages: None, blocks: chosen.blocks, splits: chosen.splits };
                let mut stages = 0;
                options.take("stages", &mut stages);
                options.take("blocks", &mut o.blocks);
                options.take("splits", &mut o.splits);
                o.stages = (stages > 0).then_some(stages);
                Self::Small(Small::streamed_with(p, o).ok_or_else(unfit)?)
            }
            "teams" => {
                let mut o = Teams::default();
                let fields: [(&str, &mut Option<u64>); 5] = [
                    ("stages", &mut o.stages),
                    ("x_stages", &mut o.x_stages),
                    ("blocks", &mut o.blocks),
                    ("splits", &mut o.splits),
                    ("room", &mut o.room),
                ];
                for (name, field) in fields {
                    let mut value = u64::MAX;
                    options.take(name, &mut value);
                    *field = (value != u64::MAX).then_some(value);
                }
                Self::Small(Small::choose_teams(p, o).ok_or_else(unfit)?)
            }
            "small" | "planes" => {
                let which = if family == "planes" { Family::Planes } else { Family::Staged };
                let chosen = Small::choose(p, which).ok_or_else(unfit)?;
                let mut o = chosen.options;
                let (mut fused, mut cluster) = (u64::from(o.fused), u64::from(o.reduce == Reduce::Cluster));
                options.take("fused", &mut fused);
                options.take("cluster", &mut cluster);
                options.take("splits", &mut o.splits);
                options.take("stages", &mut o.stages);
                options.take("blocks", &mut o.blocks);
                options.take("room", &mut o.room);
                o.fused = fused != 0;
                o.reduce = if cluster == 0 { Reduce::Workspace } else { Reduce::Cluster };
                Self::Small(Small::with(p, &o).ok_or_else(unfit)?)
            }
            "tile" => {
                let mut splits = u64::from(Tile::choose(p).splits);
                options.take("splits", &mut splits);
                Self::Tile(Tile::with_splits(p, splits))
            }
            "hopper" => {
                let fields: [(&str, fn(&Hopper) -> u32); 5] = [
                    ("rows", |c| c.rows),
                    ("columns", Hopper::columns),
                    ("splits", |c| c.splits),
                    ("split_tiles", |c| c.split_tiles),
                    ("grid", |c| c.grid),
                ];
                let asked: Vec<_> = fields
                    .into_iter()
                    .filter_map(|(name, field)| {
                        let mut value = u64::MAX;
                        options.take(name, &mut value);
                        (value != u64::MAX).then_some((field, value))
                    })
                    .collect();
                let fits = |c: &Hopper| asked.iter().all(|&(field, value)| u64::from(field(c)) == value);
                Self::Hopper(Hopper::best(p, fits).ok_or_else(unfit)?)
            }
            _ => return Err(refused(text, "expected auto, small, streamed, teams, planes, tile or hopper")),
        };
        options.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Activations, Arch};

    fn problem(m: usize, activations: Activations) -> Problem {
        let arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
        Problem { arch, m, n: 4096, k: 4096, activations, segment: 128, aligned: true }
    }

    #[test]
    fn requests_name_a_family_and_options() {
        let p = problem(4, Activations::Int8 { per_row: false });
        assert_eq!(Config::requested("auto", &p).unwrap(), choose(&p));
        let Config::Small(c) = Config::requested("small splits=4 cluster=1 fused=0", &p).unwrap() else {
            panic!()
        };
        assert_eq!((c.splits, c.cluster(), c.options.fused), (4, 4, false));
        let few = problem(16, Activations::F16);
        let Config::Small(c) = Config::requested("teams splits=2", &few).unwrap() else { panic!() };
        assert_eq!(c.options.family, Family::Teams);
        assert_eq!((c.splits, c.strips, c.options.room), (2, 4, 2));
        let Config::Small(c) = Config::requested("planes", &p).unwrap() else { panic!() };
        assert_eq!(c.options.family, Family::Planes);
        assert!(matches!(Config::requested("tile splits=2", &p).unwrap(), Config::Tile(c) if c.splits == 2));
        assert!(
            matches!(Config::requested("hopper rows=64", &p).unwrap(), Config::Hopper(c) if c.rows == 64)
        );
    }

    #[test]
    fn requests_that_cannot_be_met_say_why() {
        let refusal = |text: &str, p: &Problem| Config::requested(text, p).unwrap_err().to_string();
        let p = problem(4, Activations::F16);
        assert!(refusal("", &p).contains("expected auto"));
        assert!(refusal("tile splits", &p).contains("name=number"));
        assert!(refusal("tile rows=64", &p).contains("no option rows"));
        assert!(refusal("planes", &p).contains("does not fit"));
        assert!(refusal("small", &problem(33, Activations::F16)).contains("does not fit"));
        assert!(refusal("teams", &problem(8, Activations::F16)).contains("does not fit"));
        assert!(refusal("teams", &Problem { aligned: false, ..p }).contains("does not fit"));
        assert!(refusal("hopper rows=48", &p).contains("does not fit"));
    }
}
