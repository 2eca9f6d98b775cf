package bench

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// Report is what `fineline bench NAME --json` prints.
type Report struct {
	Bench   string   `json:"bench"`
	Host    Host     `json:"host"`
	Results []Result `json:"results"`
	// Extremes are the best and the worst ratio of figures that several scenarios have.
	Extremes []Extreme `json:"extremes,omitempty"`
}

// Extreme is how ours compares with the best peer where it does best and where it does worst.
type Extreme struct {
	Name       string  `json:"name"` // of the figure
	Best       float64 `json:"best"` // ratio
	BestWhere  string  `json:"best_where"`
	Worst      float64 `json:"worst"`
	WorstWhere string  `json:"worst_where"`
}

// Host is the machine that was measured.
type Host struct {
	KVM         string `json:"kvm"` // hardware, software, or absent where the benchmark needs none
	CPUs        int    `json:"cpus"`
	MemoryBytes uint64 `json:"memory_bytes"`
}

// Result is one figure, ours beside the peer's.
type Result struct {
	Name     string  `json:"name"`
	Unit     string  `json:"unit"`
	Ours     float64 `json:"ours"` // median
	Peer     float64 `json:"peer"` // median; 0 if there is no peer
	PeerName string  `json:"peer_name"`
	Ratio    float64 `json:"ratio"` // ours over the peer's; 0 if there is none
	Runs     int     `json:"runs"`
	Spread   Spread  `json:"spread"`
	Best     bool    `json:"best,omitempty"` // of several peers that are alike
}

// Spread is the range from the smallest to the largest run.
type Spread struct {
	OursMin float64 `json:"ours_min"`
	OursMax float64 `json:"ours_max"`
	PeerMin float64 `json:"peer_min"`
	PeerMax float64 `json:"peer_max"`
}

// newReport describes this host, which must have a KVM.
func newReport(name string) (*Report, error) {
	kind, err := kvmKind()
	if err != nil {
		return nil, err
	}
	return reportOn(name, kind)
}

func kvmKind() (string, error) {
	sys, err := kvm.Open()
	if err != nil {
		return "", err
	}
	return sys.Kind().String(), sys.Close()
}

func reportOn(name, kind string) (*Report, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("sysinfo: %w", err)
	}
	return &Report{Bench: name, Host: Host{
		KVM: kind, CPUs: runtime.NumCPU(), MemoryBytes: info.Totalram * uint64(info.Unit),
	}}, nil
}

// add appends the figure of these runs, and lends it until the next. peer is empty if there is no peer.
func (r *Report) add(name, unit, peerName string, ours, peer []float64) *Result {
	result := Result{Name: name, Unit: unit, Runs: len(ours), Ours: median(ours)}
	result.Spread.OursMin, result.Spread.OursMax = slices.Min(ours), slices.Max(ours)
	if len(peer) > 0 {
		result.PeerName, result.Peer = peerName, median(peer)
		result.Spread.PeerMin, result.Spread.PeerMax = slices.Min(peer), slices.Max(peer)
		if result.Peer != 0 {
			result.Ratio = result.Ours / result.Peer
		}
	}
	r.Results = append(r.Results, result)
	return &r.Results[len(r.Results)-1]
}

// extreme notes a ratio of ours to the best peer's in one scenario.
func (r *Report) extreme(figure, where string, ratio float64) {
	at := slices.IndexFunc(r.Extremes, func(e Extreme) bool { return e.Name == figure })
	if at < 0 {
		r.Extremes = append(r.Extremes, Extreme{figure, ratio, where, ratio, where})
		return
	}
	e := &r.Extremes[at]
	if ratio < e.Best {
		e.Best, e.BestWhere = ratio, where
	}
	if ratio > e.Worst {
		e.Worst, e.WorstWhere = ratio, where
	}
}

// median of a sample that is not empty.
func median(sample []float64) float64 {
	s := slices.Sorted(slices.Values(sample))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// quantile of a sample that is not empty: the smallest figure that a share q of all does not exceed.
func quantile(sample []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(sample))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// Print writes the report as a table for people.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s on %s KVM, %d CPUs, %d MiB: medians\n\n", r.Bench, r.Host.KVM, r.Host.CPUs, r.Host.MemoryBytes>>20)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "what\tunit\tours\tpeer\tratio\truns\tours from-to\tpeer from-to\tpeer is")
	for _, x := range r.Results {
		s := x.Spread
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", x.Name, x.Unit, figure(x.Ours), x.ofPeer(figure(x.Peer)),
			x.ratio(), x.Runs, span(s.OursMin, s.OursMax), x.ofPeer(span(s.PeerMin, s.PeerMax)), x.ofPeer(x.PeerName)+x.star())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Results, func(x Result) bool { return x.Best }) {
		fmt.Fprintln(out, "\n* the best of the peer's settings, of pre-copy and of post-copy each")
	}
	for i, e := range r.Extremes {
		if i == 0 {
			fmt.Fprintln(out, "\nRatios to the best pre-copy setting, at best and at worst:")
		}
		fmt.Fprintf(out, "  %s: %s (%s), %s (%s)\n", e.Name, figure(e.Best), e.BestWhere, figure(e.Worst), e.WorstWhere)
	}
	return nil
}

func (x Result) star() string {
	if x.Best {
		return " *"
	}
	return ""
}

// ofPeer is text, if there is a peer.
func (x Result) ofPeer(text string) string {
	if x.PeerName == "" {
		return "-"
	}
	return text
}

func (x Result) ratio() string {
	if x.Ratio == 0 {
		return "-"
	}
	return figure(x.Ratio)
}

func span(from, to float64) string {
	if from == to {
		return figure(from)
	}
	return figure(from) + "-" + figure(to)
}

// figure prints three significant digits, as measurements here deserve.
func figure(v float64) string {
	switch abs := math.Abs(v); {
	case v == math.Trunc(v) && abs < 1000, abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}

// Progress is told of each run of a benchmark.
type Progress func(done, total int)
