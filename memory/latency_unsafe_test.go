package memory

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkPageRequest measures how long a guest waits for a page, from its touch to its next instruction: a bare
// userfaultfd handler that copies (the yardstick), Demand filled from this process, and Demand filled
// from another process over a Unix socket.
func BenchmarkPageRequest(b *testing.B) {
	const pages = 4096
	measure := func(b *testing.B, start func(b *testing.B, g *Guest) (stop func())) {
		needDemand(b)
		var took []time.Duration
		for b.Loop() {
			g := newTestGuest(b, []Region{{0, pages * PageSize}})
			stop := start(b, g)
			c := newVCPU(b, g)
			runtime.LockOSThread()
			for page := GPA(0); page < pages*PageSize; page += PageSize {
				at := time.Now()
				if errno := c.transfer(unix.SYS_WRITE, c.pipe[1], c.addr(page)); errno != 0 {
					b.Fatal(errno)
				}
				took = append(took, time.Since(at))
				var v uint64
				if c.transfer(unix.SYS_READ, c.pipe[0], unsafe.Pointer(&v)); v != content(page) {
					b.Fatalf("page %#x: %#x", uint64(page), v)
				}
			}
			runtime.UnlockOSThread()
			stop()
		}
		slices.Sort(took)
		for name, at := range map[string]float64{"p50-us": 0.5, "p99-us": 0.99} {
			b.ReportMetric(float64(took[int(at*float64(len(took)-1))].Nanoseconds())/1e3, name)
		}
	}
	b.Run("bare", func(b *testing.B) { measure(b, bareHandler) })
	b.Run("local", func(b *testing.B) {
		measure(b, func(b *testing.B, g *Guest) func() {
			d := demandOf(b, g, allPages(g))
			done := make(chan error)
			go func() { done <- serveAll(d) }()
			return func() { <-done; d.Close() }
		})
	})
	b.Run("socket", func(b *testing.B) { measure(b, socketPager) })
}

// bareHandler is a thread that reads faults and copies, as the example of userfaultfd(2).
func bareHandler(b *testing.B, g *Guest) func() {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		b.Skip(errno)
	}
	api := uffdAPIArg{api: uffdAPI}
	if errno := uffdIoctl(fd, uffdioAPI, uintptr(unsafe.Pointer(&api))); errno != 0 {
		b.Fatal(errno)
	}
	m := &g.rams[0]
	r := uffdRegisterArg{uffdRange: uffdRange{uint64(m.guestAddr()), m.sizeBytes}, mode: uffdModeMissing}
	if errno := uffdIoctl(fd, uffdioRegister, uintptr(unsafe.Pointer(&r))); errno != 0 {
		b.Fatal(errno)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		page, err := unix.Mmap(-1, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			panic(err)
		}
		defer unix.Munmap(page)
		for range m.sizeBytes / PageSize {
			var msg uffdMessage
			if _, err := unix.Read(int(fd), unsafe.Slice((*byte)(unsafe.Pointer(&msg)), 32)); err != nil {
				panic(err)
			}
			off := (msg.address - uint64(m.guestAddr())) &^ (PageSize - 1)
			fillContent(GPA(off))(page)
			arg := struct {
				dst, src, size, mode uint64
				copied               int64
			}{uint64(m.guestAddr()) + off, uint64(uintptr(unsafe.Pointer(&page[0]))), PageSize, 0, 0}
			const uffdioCopy = 0xc028aa03
			if errno := uffdIoctl(fd, uffdioCopy, uintptr(unsafe.Pointer(&arg))); errno != 0 {
				panic(errno)
			}
		}
	}()
	return func() { <-done; unix.Close(int(fd)) }
}

// socketPager asks another process, this program again, for each page.
func socketPager(b *testing.B, g *Guest) func() {
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
	d := demandOf(b, g, allPages(g))
	go func() {
		var request [8]byte
		for {
			gpa, err := d.Next(context.Background())
			if err != nil {
				return
			}
			binary.LittleEndian.PutUint64(request[:], uint64(gpa))
			if _, err := conn.Write(request[:]); err != nil {
				panic(err)
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var answer [8 + PageSize]byte
		for d.Len() > 0 {
			if _, err := io.ReadFull(conn, answer[:]); err != nil {
				panic(err)
			}
			if _, err := d.Fill(GPA(binary.LittleEndian.Uint64(answer[:])), func(page []byte) error {
				copy(page, answer[8:])
				return nil
			}); err != nil {
				panic(err)
			}
		}
	}()
	return func() { <-done; d.Close(); conn.Close(); l.Close(); source.Wait() }
}

// TestPageSource is the other process of BenchmarkPageRequest.
func TestPageSource(t *testing.T) {
	path := os.Getenv("FINELINE_PAGE_SOURCE")
	if path == "" {
		t.Skip("only as a process of BenchmarkPageRequest")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var answer [8 + PageSize]byte
	for {
		if _, err := io.ReadFull(conn, answer[:8]); err != nil {
			return
		}
		fillContent(GPA(binary.LittleEndian.Uint64(answer[:])))(answer[8:])
		if _, err := conn.Write(answer[:]); err != nil {
			t.Fatal(err)
		}
	}
}
