package migration

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
)

// BenchmarkMigrate moves 256 MiB of content over a Unix socket within one process; the guest is idle.
func BenchmarkMigrate(b *testing.B) {
	const pages = 65536
	var downtime, rate float64
	for b.Loop() {
		b.StopTimer()
		src, dst := newMachine(b, &world{}, source, pages), newMachine(b, &world{}, destination, pages)
		for _, r := range src.mem.Regions() {
			for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
				if err := src.mem.StoreUint64(r.Base+memory.GPA(off), off+1); err != nil {
					b.Fatal(err)
				}
			}
		}
		at := Address{network: "unix", address: filepath.Join(b.TempDir(), "s")}
		l, err := Listen(context.Background(), at, ListenOptions{
			Journal: journal.New("/j", nullSink{}, nil), hooks: hooks{plan: &inject.Plan{}},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		received := make(chan error, 1)
		go func() {
			_, err := l.Receive(context.Background(), dst)
			received <- err
		}()
		r, err := Send(context.Background(), src, at, SendOptions{
			MachineID: "guest", Journal: journal.New("/j", nullSink{}, nil), hooks: hooks{plan: &inject.Plan{}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := <-received; err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		downtime += r.DowntimeMS
		rate += r.BandwidthBytesPerS
		dst.end()
		l.Close()
		b.StartTimer()
	}
	b.SetBytes(pages * memory.PageSize)
	b.ReportMetric(downtime/float64(b.N), "downtime-ms")
	b.ReportMetric(rate/float64(b.N)/1e6, "MB/s-measured")
}
