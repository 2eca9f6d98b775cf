package vmm

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// BenchmarkDemandFault measures the time from one fault of a vCPU that touches page after page to its next: the fault, the exit
// to the kernel, the page, and the guest's few instructions.
func BenchmarkDemandFault(b *testing.B) {
	for _, way := range []string{"local", "socket"} {
		b.Run(way, func(b *testing.B) { benchmarkFault(b, way == "socket") })
	}
}

func benchmarkFault(b *testing.B, socket bool) {
	vmmtest.NeedKVM(b)
	const pages = 8192
	var took []time.Duration
	for b.Loop() {
		m, err := New(Config{CPUs: 1, MemoryBytes: 128 << 20, CPUModel: CPUHost, Boot: BootFiles{
			Kernel: "builtin:dirty", Cmdline: fmt.Sprintf("pages=%d lines=1 pattern=seq rate=0 progress=0 verify=0 table=0", pages),
		}})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Boot(); err != nil {
			b.Fatal(err)
		}
		if err := m.Resume(); err != nil {
			b.Fatal(err)
		}
		var s *dirtycheck.State
		for err = dirtycheck.ErrNotReady; err != nil; {
			s, err = dirtycheck.ReadState(m.Memory())
		}
		if err := m.Pause(); err != nil {
			b.Fatal(err)
		}
		absent := m.Memory().NewPageSet()
		absent.AddRange(s.Params.Base, pages*memory.PageSize)
		d, err := m.Memory().Demand(absent)
		if err != nil {
			b.Skip(err)
		}
		fill := func(gpa memory.GPA) { // its content is in place
			if _, err := d.Fill(gpa, func([]byte) error { return nil }); err != nil {
				panic(err)
			}
		}
		stop := func() {}
		if socket {
			fill, stop = overSocket(b, fill)
		}
		if err := m.Resume(); err != nil {
			b.Fatal(err)
		}
		last := time.Time{}
		for {
			gpa, err := d.Next(b.Context())
			if err != nil {
				break
			}
			now := time.Now()
			if !last.IsZero() {
				took = append(took, now.Sub(last))
			}
			last = now
			fill(gpa)
		}
		stop()
		if err := d.Close(); err != nil {
			b.Error(err)
		}
		if err := m.Close(); err != nil {
			b.Error(err)
		}
	}
	slices.Sort(took)
	for name, at := range map[string]float64{"p50-us": 0.5, "p99-us": 0.99} {
		b.ReportMetric(float64(took[int(at*float64(len(took)-1))].Nanoseconds())/1e3, name)
	}
}

// overSocket asks another process for each page before it fills.
func overSocket(b *testing.B, fill func(memory.GPA)) (func(memory.GPA), func()) {
	path := filepath.Join(b.TempDir(), "pages")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	source := exec.Command(os.Args[0], "-test.run=^TestPageSource$")
	source.Env = append(os.Environ(), "FINELINE_PAGE_SOURCE="+path)
	if err := source.Start(); err != nil {
		b.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		var answer [8 + memory.PageSize]byte
		for {
			if _, err := io.ReadFull(conn, answer[:]); err != nil {
				return
			}
			fill(memory.GPA(binary.LittleEndian.Uint64(answer[:])))
		}
	}()
	var request [8]byte
	return func(gpa memory.GPA) {
			binary.LittleEndian.PutUint64(request[:], uint64(gpa))
			if _, err := conn.Write(request[:]); err != nil {
				panic(err)
			}
		}, func() {
			conn.Close()
			l.Close()
			source.Wait()
		}
}

// TestPageSource is the other process of BenchmarkDemandFault.
func TestPageSource(t *testing.T) {
	path := os.Getenv("FINELINE_PAGE_SOURCE")
	if path == "" {
		t.Skip("only as a process of BenchmarkDemandFault")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var answer [8 + memory.PageSize]byte
	for {
		if _, err := io.ReadFull(conn, answer[:8]); err != nil {
			return
		}
		if _, err := conn.Write(answer[:]); err != nil {
			t.Fatal(err)
		}
	}
}
