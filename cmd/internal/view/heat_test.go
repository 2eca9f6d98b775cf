package view

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fineline-vmm/fineline/vmm/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; is it what it should be? got:\n%s\nwant:\n%s", name, got, want)
	}
}

func amplification(v float64) *float64 { return &v }

// window is one in which lines rise along two ranges of memory, and two pages are hot.
func window(number int64) api.TrackWindow {
	const buckets, bucketBytes = 4096, 64 << 10
	changed := uint64(5000)
	w := api.TrackWindow{
		Window: number, StartMS: float64(number) * 1000, LengthMS: 1000.25, Pages: 40, Lines: uint64(100 * number), Pages2M: 3,
		Amplification4K: amplification(float64(number) * 2), Amplification2M: amplification(819.2), HarvestMS: 1.5,
		ChangedBytes: &changed, Amplification64: amplification(1.28), InexactPages: 1,
		Detail: &api.TrackDetail{
			Ranges:      []api.TrackRange{{Base: 0, SizeBytes: 3 << 26}, {Base: 4 << 30, SizeBytes: buckets*bucketBytes - 3<<26}},
			BucketBytes: bucketBytes, Buckets: make([]uint32, buckets),
			TopPages: []api.TrackPage{{GPA: 4 << 30, Mask: ^api.LineMask(0), Lines: 64}, {GPA: 0x1000, Mask: 0x8000000f00000001, Lines: 6}},
		},
	}
	for i := 64; i < buckets; i++ {
		w.Detail.Buckets[i] = uint32(i * i / (buckets * buckets / 1025))
	}
	return w
}

func heat(colour bool) *Heat {
	h := &Heat{Mode: "diff", Every: time.Second, Colour: colour}
	for i := range int64(5) {
		h.Add(window(i))
	}
	return h
}

func TestHeat(t *testing.T) {
	golden(t, "heat-80x24.txt", heat(false).Draw(80, 24).Text())
	golden(t, "heat-120x40.txt", heat(false).Draw(120, 40).Text())
	golden(t, "heat-40x10.txt", heat(false).Draw(40, 10).Text())
	golden(t, "heat-frame.txt", heat(true).Draw(80, 24).Frame())
	golden(t, "heat.svg", heat(true).Draw(90, 26).SVG("a map"))
	golden(t, "heat-first.txt", (&Heat{Mode: "homed", Every: time.Second}).Draw(80, 24).Text())
}

// Nothing was written in the window; a few lines are all that is watched.
func TestHeatOfLittle(t *testing.T) {
	h := &Heat{Mode: "stores", Every: time.Second}
	h.Add(api.TrackWindow{Window: 1, LengthMS: 1000, Detail: &api.TrackDetail{
		Ranges: []api.TrackRange{{Base: 0x1040, SizeBytes: 5 * 64}}, BucketBytes: 64, Buckets: make([]uint32, 5), TopPages: []api.TrackPage{},
	}})
	golden(t, "heat-little.txt", h.Draw(80, 12).Text())
}

// Whatever the size of a terminal is, a picture has this size.
func TestHeatFits(t *testing.T) {
	h := heat(true)
	for cols := range 130 {
		for rows := range 50 {
			g := h.Draw(cols, rows)
			lines := strings.Split(strings.TrimSuffix(g.Text(), "\n"), "\n")
			if len(lines) != max(rows, 1) {
				t.Fatalf("%d lines on %dx%d", len(lines), cols, rows)
			}
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > max(cols, 1) {
					t.Fatalf("%d columns on %dx%d", n, cols, rows)
				}
			}
		}
	}
}

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		lines, most uint64
		levels      int
		want        int
	}{
		{0, 1024, 5, 0}, {1, 1024, 5, 1}, {1024, 1024, 5, 4}, {32, 1023, 5, 2}, {1022, 1023, 5, 3}, {1, 1, 5, 4}, {1, 1, 8, 7}, {2000, 1024, 5, 4}, {1, 0, 5, 4},
	} {
		if got := level(c.lines, c.most, c.levels); got != c.want {
			t.Errorf("level(%d, %d, %d) = %d, want %d", c.lines, c.most, c.levels, got, c.want)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	h := &Heat{}
	for i := range int64(3 * maxHistory) {
		h.Add(api.TrackWindow{Window: i})
	}
	if len(h.history) != maxHistory || h.history[maxHistory-1].Window != 3*maxHistory-1 {
		t.Errorf("%d windows, the last %d", len(h.history), h.history[len(h.history)-1].Window)
	}
}

func TestWindowsTable(t *testing.T) {
	var out bytes.Buffer
	table := &Windows{Out: &out, CountBytes: true}
	none := api.TrackWindow{Window: 9, StartMS: 1e7, LengthMS: 1000, ChangedBytes: new(uint64)}
	for _, w := range []api.TrackWindow{window(1), window(2), none} {
		if err := table.Add(w); err != nil {
			t.Fatal(err)
		}
	}
	table = &Windows{Out: &out}
	none.ChangedBytes = nil
	if err := table.Add(none); err != nil {
		t.Fatal(err)
	}
	golden(t, "windows.txt", out.String())
}
