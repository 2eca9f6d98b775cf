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

// add appends the figure of these runs. peer is empty if there is no peer.
func (r *Report) add(name, unit, peerName string, ours, peer []float64) {
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
}

// median of a sample that is not empty.
func median(sample []float64) float64 {
	s := slices.Sorted(slices.Values(sample))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Print writes the report as a table for people.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s on %s KVM, %d CPUs, %d MiB: medians\n\n", r.Bench, r.Host.KVM, r.Host.CPUs, r.Host.MemoryBytes>>20)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "what\tunit\tours\tpeer\tratio\truns\tours from-to\tpeer from-to\tpeer is")
	for _, x := range r.Results {
		s := x.Spread
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", x.Name, x.Unit, figure(x.Ours), x.ofPeer(figure(x.Peer)),
			x.ratio(), x.Runs, span(s.OursMin, s.OursMax), x.ofPeer(span(s.PeerMin, s.PeerMax)), x.ofPeer(x.PeerName))
	}
	return w.Flush()
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
