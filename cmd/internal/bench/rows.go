package bench

import "github.com/fineline-vmm/fineline/cmd/internal/qemu"

// row is one figure of a migration.
type row struct {
	what, unit, note string
	of               func(sample) float64
	counted          bool // the peer's is of the one run that counts
	ranked           bool // less is better: the best of the peers is marked
	extreme          bool // best and worst of all scenarios are told
	postcopy         bool // only post-copy has it
	ownReport        bool // the peer's pre-copy says it itself: no row without a peer
}

// migrateRows are all figures of a migration.
var migrateRows = []row{
	{what: "total", unit: "ms", of: func(s sample) float64 { return s.totalMS }, ranked: true, extreme: true},
	{what: "downtime", unit: "ms", of: func(s sample) float64 { return s.downtimeMS }, ranked: true, extreme: true},
	{
		what: "downtime", unit: "ms", note: ", as its source reports it", ownReport: true,
		of: func(s sample) float64 { return s.ownDowntimeMS },
	},
	{
		what: "sent", unit: "MiB", note: ", RAM only", ranked: true, extreme: true,
		of: func(s sample) float64 { return s.bytesSent / mib },
	},
	{
		what: "sent in the downtime", unit: "MiB", note: ", RAM only, one run", counted: true, ranked: true, extreme: true,
		of: func(s sample) float64 { return s.bytesInDowntime / mib },
	},
	{what: "rounds", of: func(s sample) float64 { return s.rounds }},
	{what: "gave up the downtime goal", unit: "share", of: func(s sample) float64 { return count(!s.converged) }},
	{what: "CPU beside vCPUs, source", unit: "ms", of: func(s sample) float64 { return s.source.cpuMS }, ranked: true},
	{what: "CPU beside vCPUs, destination", unit: "ms", of: func(s sample) float64 { return s.destination.cpuMS }, ranked: true},
	{what: "peak memory, source", unit: "MiB", of: func(s sample) float64 { return s.source.peakMiB }, ranked: true},
	{what: "peak memory beyond guest RAM, source", unit: "MiB", of: func(s sample) float64 { return s.source.ownMiB }, ranked: true},
	{what: "peak memory, destination", unit: "MiB", of: func(s sample) float64 { return s.destination.peakMiB }, ranked: true},
	{
		what: "peak memory beyond guest RAM, destination", unit: "MiB", ranked: true,
		of: func(s sample) float64 { return s.destination.ownMiB },
	},
	{what: "all pages there after the resume", unit: "ms", postcopy: true, of: func(s sample) float64 { return s.afterResumeMS }},
	{what: "pages asked for", unit: "pages", postcopy: true, of: func(s sample) float64 { return s.requests }},
	{what: "mismatches", unit: "lines", of: func(s sample) float64 { return float64(s.mismatches) }},
}

func count(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// addRows turns samples into figures: for each, ours beside each of the peer's settings.
func (m *migrator) addRows(name string, ours []sample, rivals []rival) {
	for _, r := range migrateRows {
		if len(rivals) == 0 && !r.ownReport && !r.postcopy {
			m.report.add(name+": "+r.what, r.unit, "", pick(ours, r.of), nil)
		}
		m.addRow(name, r, ours, rivals)
	}
	m.report.add(name+": memory of baselines", "MiB", "", pick(ours, func(s sample) float64 { return s.baselineMiB }), nil)
	m.report.add(name+": guest slowed down by", "%", "", pick(ours, func(s sample) float64 { return s.throttle }), nil)
}

func (m *migrator) addRow(name string, r row, ours []sample, rivals []rival) {
	best := map[bool]int{} // index into the report, by whether it is post-copy
	alike := map[bool]int{}
	for _, rival := range rivals {
		kind := rival.setting.Postcopy
		if r.postcopy && !kind || r.ownReport && kind { // 7.2 reports nonsense for the downtime of a post-copy
			continue
		}
		theirs := rival.runs
		if r.counted {
			theirs = []sample{rival.counted}
		}
		x := m.report.add(name+": "+r.what, r.unit, rival.name+r.note, pick(ours, r.of), pick(theirs, r.of))
		at := len(m.report.Results) - 1
		if was, ok := best[kind]; !ok || x.Peer < m.report.Results[was].Peer {
			best[kind] = at
		}
		alike[kind]++
	}
	for kind, at := range best {
		m.report.Results[at].Best = r.ranked && alike[kind] > 1
	}
	if at, ok := best[false]; ok && r.extreme && m.report.Results[at].Ratio != 0 {
		m.report.extreme(r.what, name, m.report.Results[at].Ratio)
	}
}

func pick(samples []sample, of func(sample) float64) []float64 {
	var out []float64
	for _, s := range samples {
		out = append(out, of(s))
	}
	return out
}

// postcopySettings leaves out what is no post-copy.
func postcopySettings(all []qemu.Setting) []qemu.Setting {
	var out []qemu.Setting
	for _, s := range all {
		if s.Postcopy {
			out = append(out, s)
		}
	}
	return out
}
