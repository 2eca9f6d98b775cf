package bench

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/memory"
)

// Scenario is one guest and its load.
type Scenario struct {
	Name      string // as --only takes it
	title     string // of its rows
	memoryMiB int
	load      workload.Load
	// bandwidth limits both VMMs, in bytes a second, unless the user limits them; 0: no limit.
	bandwidth uint64
	extra     bool // only when named
}

// migrateScenarios go from the best case of line granularity, one line a page, to its worst, every byte.
var migrateScenarios = []Scenario{
	{Name: "hot-4096", title: "4096 pages, 1 line", memoryMiB: 1024, load: seq(4096, 1, 0)},
	{Name: "hot-65536", title: "65536 pages, 1 line", memoryMiB: 1024, load: seq(65536, 1, 0)},
	{Name: "bytes-4096", title: "4096 pages, every byte", memoryMiB: 1024, load: seq(4096, 64, 0)},
	{Name: "paced-65536", title: "65536 pages, 1 line, 50000/s", memoryMiB: 1024, load: seq(65536, 1, 50000)},
	{Name: "idle-4g", title: "idle, 4 GiB", memoryMiB: 4096, load: seq(1, 1, 1)},
	// 64 MiB of pages, each written six times a second, is 400 MB/s of pages and 6 MB/s of lines.
	{
		Name: "narrow", title: "16384 pages, 1 line, 100000/s, 64 MiB/s allowed", memoryMiB: 1024,
		load: seq(16384, 1, 100000), bandwidth: 64 << 20,
	},
	{Name: "small-64m", title: "64 MiB, 4096 pages, 1 line", memoryMiB: 64, load: seq(4096, 1, 0), extra: true},
	{Name: "large-8g", title: "8 GiB, 65536 pages, 1 line", memoryMiB: 8192, load: seq(65536, 1, 0), extra: true},
	{Name: "above-8g", title: "8 GiB, 65536 pages above 4 GiB, 1 line", memoryMiB: 8192, load: above(seq(65536, 1, 0)), extra: true},
	{Name: "random-65536", title: "65536 pages, 4 lines, random", memoryMiB: 1024, load: pattern("random", 65536, 4), extra: true},
	{Name: "zipf-65536", title: "65536 pages, 4 lines, zipf", memoryMiB: 1024, load: pattern("zipf", 65536, 4), extra: true},
}

// postcopyScenarios are passes over a working set, a line a page, in the orders that the literature predicts.
var postcopyScenarios = []Scenario{
	{Name: "seq", title: "65536 pages in order", memoryMiB: 1024, load: pattern("seq", 65536, 1)},
	{Name: "stride", title: "65536 pages, every 16th", memoryMiB: 1024, load: pattern("stride", 65536, 1)},
	{Name: "cluster", title: "65536 pages, random in clusters", memoryMiB: 1024, load: pattern("cluster", 65536, 1)},
	{Name: "random", title: "65536 pages, random", memoryMiB: 1024, load: pattern("random", 65536, 1), extra: true},
	{Name: "small-64m", title: "64 MiB, 4096 pages in order", memoryMiB: 64, load: pattern("seq", 4096, 1), extra: true},
	{Name: "large-8g", title: "8 GiB, 65536 pages in order", memoryMiB: 8192, load: pattern("seq", 65536, 1), extra: true},
}

func pattern(name string, pages, lines uint64) workload.Load {
	return workload.Load{VCPUs: 1, Pages: pages, Lines: lines, Pattern: name}
}

func seq(pages, lines, rate uint64) workload.Load {
	l := pattern("seq", pages, lines)
	l.Rate = rate
	return l
}

func above(l workload.Load) workload.Load {
	l.Base = 4 << 30
	return l
}

// hotBytes is how much memory the guest writes again and again.
func (s *Scenario) hotBytes() uint64 { return s.load.Pages * memory.PageSize }

func (s *Scenario) memoryBytes() uint64 { return uint64(s.memoryMiB) << 20 }

// MigrateScenarios lists the names that MigrateOptions.Only takes; those with a star only when named.
func MigrateScenarios() string { return names(migrateScenarios) }

// PostcopyScenarios are the same of PostcopyOptions.Only.
func PostcopyScenarios() string { return names(postcopyScenarios) }

func names(all []Scenario) string {
	var text []string
	for _, s := range all {
		if s.extra {
			s.Name += "*"
		}
		text = append(text, s.Name)
	}
	return strings.Join(text, ", ")
}

// ErrNoLoad: MigrateOptions.Only names a load that there is not; the error lists those that there are.
var ErrNoLoad = errors.New("there is no load")

// choose finds the scenarios of these names, or numbers from 1; without any, all that are not extra. Errors wrap ErrNoLoad.
func choose(all []Scenario, only []string) ([]Scenario, error) {
	var chosen []Scenario
	for _, name := range only {
		at := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
		if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(all) {
			at = n - 1
		}
		if at < 0 {
			return nil, fmt.Errorf("%w %q: choose of %s", ErrNoLoad, name, names(all))
		}
		chosen = append(chosen, all[at])
	}
	if len(only) == 0 {
		chosen = slices.DeleteFunc(slices.Clone(all), func(s Scenario) bool { return s.extra })
	}
	return chosen, nil
}
