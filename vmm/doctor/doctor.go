package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// Finding is one line of the report.
type Finding struct {
	Area     string `json:"area"`
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"`
	Value    string `json:"value"`
	Meaning  string `json:"meaning"`
	Remedy   string `json:"remedy,omitempty"` // what to do when not OK
}

// Report is all that was found.
type Report struct {
	KVM      string    `json:"kvm"` // hardware, software or none
	CPUs     int       `json:"cpus"`
	Findings []Finding `json:"findings"`
}

// Fit reports whether nothing that is required is absent.
func (r *Report) Fit() bool {
	for _, f := range r.Findings {
		if f.Required && !f.OK {
			return false
		}
	}
	return true
}

// Examine looks at this host.
func Examine() *Report {
	r := &Report{KVM: "none", CPUs: runtime.NumCPU()}
	r.examineKVM()
	r.examineMemory()
	r.examineLimits()
	r.examineTools()
	return r
}

func (r *Report) add(f Finding) { r.Findings = append(r.Findings, f) }

func (r *Report) examineKVM() {
	sys, err := kvm.Probe()
	if err != nil {
		r.add(Finding{Area: "kvm", Name: "/dev/kvm", Required: true, Value: "unusable", Meaning: "runs guests", Remedy: err.Error()})
		return
	}
	defer func() { _ = sys.Close() }()
	r.KVM = sys.Kind().String()
	meaning := "runs any guest, stock Linux too"
	if sys.Kind() == kvm.Software {
		meaning = "runs tiny guests (CPL 3) at native speed and emulates CPL 0; stock Linux kernels need hardware KVM"
	}
	r.add(Finding{Area: "kvm", Name: "/dev/kvm", OK: true, Required: true, Value: r.KVM, Meaning: meaning})
	for _, c := range sys.Capabilities() {
		r.add(Finding{
			Area: "kvm", Name: c.Name, OK: c.Present, Required: c.Required,
			Value: strconv.Itoa(c.Value), Meaning: c.Meaning, Remedy: c.Remedy,
		})
	}
}

func (r *Report) examineMemory() {
	fd, err := unix.MemfdCreate("fineline-doctor", unix.MFD_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
	}
	r.add(Finding{
		Area: "memory", Name: "memfd", OK: err == nil, Required: true, Value: okOr(err),
		Meaning: "guest RAM that can be mapped twice", Remedy: "run Linux 5.17 or newer",
	})
	faults := Finding{Area: "memory", Name: "userfaultfd", OK: true, Value: "ok", Meaning: "post-copy migration and write tracking of host memory"}
	if err := memory.CheckDemand(); err != nil {
		faults.OK, faults.Value, faults.Remedy = false, "unusable", err.Error()
	}
	r.add(faults)
	pages, err := readInt("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	r.add(Finding{
		Area: "memory", Name: "huge pages of 2 MiB", OK: err == nil && pages > 0, Value: fmt.Sprintf("%d reserved", pages),
		Meaning: "fewer TLB misses with --huge-pages", Remedy: "`sysctl vm.nr_hugepages=N` reserves N of them",
	})
	nodes, _ := filepath.Glob("/sys/devices/system/node/node[0-9]*") // the pattern is well formed
	r.add(Finding{
		Area: "memory", Name: "NUMA nodes", OK: true, Value: strconv.Itoa(max(1, len(nodes))), Meaning: "sockets with memory of their own",
	})
}

func (r *Report) examineLimits() {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		unit := uint64(info.Unit)
		r.add(Finding{
			Area: "limits", Name: "memory", OK: true,
			Value:   fmt.Sprintf("%d MiB, %d MiB free", info.Totalram*unit>>20, info.Freeram*unit>>20),
			Meaning: "the most that guests can have together",
		})
	}
	r.limit("open files", unix.RLIMIT_NOFILE, 1024, 1, "`ulimit -n 4096`")
	r.limit("locked memory (KiB)", unix.RLIMIT_MEMLOCK, 64, 1024, "`ulimit -l unlimited`")
}

func (r *Report) limit(name string, resource int, enough, unit uint64, remedy string) {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return // a sandbox may forbid it; nothing depends on it
	}
	value := "unlimited"
	if l.Cur != unix.RLIM_INFINITY {
		value = strconv.FormatUint(l.Cur/unit, 10)
	}
	r.add(Finding{
		Area: "limits", Name: name, OK: l.Cur/unit >= enough, Value: value,
		Meaning: fmt.Sprintf("at least %d for many vCPUs and connections", enough), Remedy: remedy,
	})
}

// tools are the Debian packages that building guests, tests and benchmarks use.
var tools = []struct{ program, pkg, meaning string }{
	{"gcc", "gcc", "builds the tiny guests again (they are in the binary already)"},
	{"qemu-system-x86_64", "qemu-system-x86", "the emulated machine of `make test` and the peer of `fineline bench`"},
	{"busybox", "busybox-static", "the Linux test image"},
}

func (r *Report) examineTools() {
	for _, t := range tools {
		path, ok := findProgram(t.program)
		value := "not installed"
		if ok {
			value = path
		}
		r.add(Finding{Area: "tools", Name: t.program, OK: ok, Value: value, Meaning: t.meaning, Remedy: "`apt-get install " + t.pkg + "`"})
	}
}

func findProgram(name string) (string, bool) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, true
		}
	}
	return "", false
}

func okOr(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func readInt(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
