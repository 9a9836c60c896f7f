//! A selection: the openers and sites that were asked for; the totals stay those of the host.

use super::model::{OpenerReport, Report, SiteReport};

/// What is asked for; an empty list asks for everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub pids: Vec<u32>,
    /// As with systemctl, `.service` may be left out.
    pub units: Vec<String>,
    /// Inodes of network namespaces.
    pub namespaces: Vec<u32>,
    /// `get_client`, `leaker.rs` or `leaker.rs:24`.
    pub sites: Vec<String>,
}

impl Selection {
    pub fn apply(&self, report: &mut Report) {
        report
            .openers
            .retain(|opener| self.has_process(opener) && self.has_namespace(opener));
        if !self.units.is_empty() {
            let is_wanted = |unit: &str| self.units.iter().any(|wanted| is_unit(unit, wanted));
            report.units.retain(|row| is_wanted(&row.unit));
        }
        if !self.sites.is_empty() {
            let is_wanted =
                |site: &SiteReport| self.sites.iter().any(|wanted| is_site(site, wanted));
            report.sites.retain(|row| is_wanted(&row.site));
            for opener in &mut report.openers {
                self.keep_sites(opener);
            }
            report.openers.retain(|opener| opener.outstanding > 0);
        }
    }

    fn has_process(&self, opener: &OpenerReport) -> bool {
        let by_pid = opener.pid.is_some_and(|pid| self.pids.contains(&pid));
        let by_unit = opener
            .unit
            .as_ref()
            .is_some_and(|unit| self.units.iter().any(|wanted| is_unit(unit, wanted)));
        (self.pids.is_empty() && self.units.is_empty()) || by_pid || by_unit
    }

    /// A process may have entered another namespace since: its sockets stay where they are.
    fn has_namespace(&self, opener: &OpenerReport) -> bool {
        let sockets = opener.sockets.iter().map(|socket| socket.netns);
        self.namespaces.is_empty()
            || sockets
                .chain(opener.netns)
                .any(|netns| self.namespaces.contains(&netns))
    }

    /// Which socket came from which site a report does not say: what is listed or counted for
    /// all of them goes.
    fn keep_sites(&self, opener: &mut OpenerReport) {
        opener.stacks.retain(|stack| {
            let site = stack.site.as_ref();
            site.is_some_and(|site| self.sites.iter().any(|wanted| is_site(site, wanted)))
        });
        opener.outstanding = opener.stacks.iter().map(|stack| stack.outstanding).sum();
        let ages = opener.stacks.iter().filter_map(|stack| stack.oldest_age_s);
        opener.oldest_age_s = ages.reduce(f64::max);
        opener.states.clear();
        opener.sockets.clear();
    }
}

fn is_unit(unit: &str, wanted: &str) -> bool {
    unit == wanted || unit.strip_suffix(".service") == Some(wanted)
}

fn is_site(site: &SiteReport, wanted: &str) -> bool {
    if site.function.as_deref() == Some(wanted) {
        return true;
    }
    let Some(file) = site.file.as_deref() else {
        return false;
    };
    let (wanted_file, wanted_line) = match wanted.rsplit_once(':') {
        Some((file, line)) if line.parse::<u32>().is_ok() => (file, line.parse().ok()),
        _ => (wanted, None),
    };
    let is_file = file == wanted_file || file.rsplit('/').next() == Some(wanted_file);
    is_file && (wanted_line.is_none() || site.line == wanted_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_asked_for_by_function_file_or_line() {
        let site = SiteReport {
            function: Some("get_client".to_owned()),
            file: Some("/srv/app/leaker.rs".to_owned()),
            line: Some(24),
        };
        for wanted in [
            "get_client",
            "leaker.rs",
            "leaker.rs:24",
            "/srv/app/leaker.rs:24",
        ] {
            assert!(is_site(&site, wanted), "{wanted}");
        }
        for wanted in ["client", "leaker.rs:25", "app/leaker.rs", "24", ""] {
            assert!(!is_site(&site, wanted), "{wanted}");
        }
    }

    #[test]
    fn a_unit_may_be_asked_for_without_its_suffix() {
        assert!(is_unit("orders.service", "orders"));
        assert!(is_unit("orders.service", "orders.service"));
        assert!(!is_unit("orders.timer", "orders"));
    }
}
