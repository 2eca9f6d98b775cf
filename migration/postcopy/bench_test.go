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
	os.Exit(m.Run())
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

// BenchmarkRequest is the latency of page requests between two processes over Unix sockets, from the miss seen to the page in place,
// for one guest CPU that touches pages at random, without and with background streams.
func BenchmarkRequest(b *testing.B) {
	for _, background := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("background=%d", background), func(b *testing.B) {
			const pages = 32 << 10
			for b.Loop() {
				guest, err := memory.New([]memory.Region{{SizeBytes: pages * memory.PageSize}}, memory.Options{})
				if err != nil {
					b.Fatal(err)
				}
				m := newFakeMemory(guest, setOf(guest, allPages(guest)...))
				p := NewPager(m, PagerOptions{})
				conns := startSource(b, pages, background)
				ctx, cancel := context.WithCancel(context.Background())
				go func() {
					rnd := rand.New(rand.NewPCG(1, 2))
					all := allPages(guest)
					for _, i := range rnd.Perm(len(all))[:8000] {
						m.touch(all[i], nil)
					}
					if background == 0 {
						cancel()
					}
				}()
				err = p.Run(ctx, conns[0], conns[1:])
				if background > 0 && err != nil {
					b.Fatal(err)
				}
				s := p.Stats()
				b.ReportMetric(float64(s.Latency.Count), "faults")
				b.ReportMetric(float64(s.Latency.P50.Microseconds()), "p50-µs")
				b.ReportMetric(float64(s.Latency.P99.Microseconds()), "p99-µs")
				b.ReportMetric(float64(s.Latency.Max.Microseconds()), "max-µs")
				cancel()
				guest.Close()
			}
		})
	}
}
