package postcopy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// sourceProcess, in the environment, makes this test binary the source process of a benchmark: the value is
// how many pages it has; its connections are the file descriptors from 3 on.
const sourceProcess = "POSTCOPY_SOURCE_PAGES"

func TestMain(m *testing.M) {
	if pages, err := strconv.ParseUint(os.Getenv(sourceProcess), 10, 64); err == nil {
		if err := serveProcess(pages); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// serveProcess serves as many pages until a connection ends.
func serveProcess(pages uint64) error {
	guest, err := memory.New([]memory.Region{{SizeBytes: pages * memory.PageSize}}, memory.Options{})
	if err != nil {
		return err
	}
	for _, gpa := range allPages(guest) {
		if err := guest.WriteAt(gpa, sourcePage(gpa)); err != nil {
			return err
		}
	}
	var conns []Conn
	for fd := uintptr(3); ; fd++ {
		f := os.NewFile(fd, "connection")
		c, err := net.FileConn(f)
		if err != nil {
			break
		}
		conns = append(conns, newConn(c))
	}
	s := NewServer(guest, setOf(guest, allPages(guest)...), ServerOptions{})
	_ = s.Serve(context.Background(), conns[0], conns[1:])
	return nil
}

// startSource starts the source process and returns our ends of its connections.
func startSource(t testing.TB, pages uint64, background int) []Conn {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", sourceProcess, pages))
	cmd.Stderr = os.Stderr
	var conns []Conn
	for range 1 + background {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fds[1]), "theirs"))
		ours := os.NewFile(uintptr(fds[0]), "ours")
		c, err := net.FileConn(ours)
		if err != nil {
			t.Fatal(err)
		}
		ours.Close()
		conns = append(conns, newConn(c))
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	t.Cleanup(func() {
		for i := range conns {
			conns[i].Close()
		}
		_ = cmd.Wait()
	})
	return conns
}

// BenchmarkFill is what one page of missing memory costs without any connection: a thread faults, the fault is
// read, the page is filled, the thread goes on. Page requests are measured against it.
func BenchmarkFill(b *testing.B) {
	const pages = 8 << 10
	for b.Loop() {
		g := newDemandGuest(b, pages)
		latency := hdrhistogram.New(1, int64(time.Second), 2)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			page := make([]byte, memory.PageSize)
			for {
				gpa, err := g.demand.Next(ctx)
				if err != nil {
					return
				}
				g.demand.Fill(gpa, func(p []byte) error { copy(p, page); return nil })
			}
		}()
		rnd := rand.New(rand.NewPCG(1, 2))
		all := allPages(g.guest)
		for _, i := range rnd.Perm(pages) {
			begin := time.Now()
			if _, err := g.load(all[i]); err != nil {
				b.Fatal(err)
			}
			latency.RecordValue(int64(time.Since(begin)))
		}
		cancel()
		report(b, "touch", latency)
	}
}

func report(b *testing.B, name string, h *hdrhistogram.Histogram) {
	b.ReportMetric(float64(h.ValueAtQuantile(50)/1000), name+"-p50-µs")
	b.ReportMetric(float64(h.ValueAtQuantile(99)/1000), name+"-p99-µs")
}

const benchPages = 64 << 10

// BenchmarkRequest is the latency of page requests between two processes over Unix sockets, for one guest CPU that
// touches pages at random, without and with background streams: as the CPU sees it ("touch", of pages that it
// waited for or not: those of more than 5 µs), and from the miss seen to the page in place.
func BenchmarkRequest(b *testing.B) {
	pages := rand.New(rand.NewPCG(1, 2)).Perm(benchPages)[:8000]
	for _, background := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("background=%d", background), func(b *testing.B) {
			for b.Loop() {
				benchRequest(b, pages, background, "")
			}
		})
	}
}

// BenchmarkBackground is how fast a guest that waits for nothing arrives.
func BenchmarkBackground(b *testing.B) {
	for _, background := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("streams=%d", background), func(b *testing.B) {
			b.SetBytes(benchPages * memory.PageSize)
			for b.Loop() {
				benchRequest(b, nil, background, "")
			}
		})
	}
}

// BenchmarkPrediction is the same with the best predictor and without background, which would hide it.
func BenchmarkPrediction(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	patterns := map[string][]int{}
	for i := range 8000 {
		patterns["sequential"] = append(patterns["sequential"], i)
		patterns["stride"] = append(patterns["stride"], 7*i)
	}
	patterns["random"] = rnd.Perm(benchPages)[:8000]
	for _, cluster := range rnd.Perm(125) {
		for _, i := range rnd.Perm(64) {
			patterns["cluster"] = append(patterns["cluster"], 512*cluster+i)
		}
	}
	for _, name := range []string{"sequential", "stride", "cluster", "random"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				benchRequest(b, patterns[name], 0, "auto")
			}
		})
	}
}

// benchRequest has a guest CPU touch pages in order.
func benchRequest(b *testing.B, pages []int, background int, predictor string) {
	g := newDemandGuest(b, benchPages)
	defer g.guest.Close()
	p := newPagerOf(b, g.demand, predictor, g.guest)
	conns := startSource(b, benchPages, background)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	latency := hdrhistogram.New(1, int64(10*time.Second), 2)
	begin := time.Now()
	touched := make(chan time.Duration, 1)
	go func() {
		for _, i := range pages {
			begin := time.Now()
			if _, err := g.load(memory.GPA(i) * memory.PageSize); err != nil {
				b.Error(err)
				break
			}
			if took := time.Since(begin); took > 5*time.Microsecond {
				latency.RecordValue(int64(took))
			}
		}
		touched <- time.Since(begin)
		if background == 0 {
			cancel()
		}
	}()
	if err := p.Run(ctx, conns[0], conns[1:]); background > 0 && err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "run-ms")
	took := <-touched
	if len(pages) == 0 {
		return
	}
	b.ReportMetric(float64(took.Milliseconds()), "guest-ms")
	s := p.Stats()
	report(b, "touch", latency)
	b.ReportMetric(100*float64(s.Faults)/float64(len(pages)), "faults-%")
	b.ReportMetric(float64(s.Latency.P50.Microseconds()), "p50-µs")
	b.ReportMetric(float64(s.Latency.P99.Microseconds()), "p99-µs")
}
