package bench

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/diff"
)

func tinyDiffCases() []diffCase {
	return diffCases(diffSize{"a", 2, 2}, diffSize{"b", 3, 1}, diffSize{"c", 5, 1})
}

// TestDiffRows: every row has a peer and two rates, and each set of kernels has its hash.
func TestDiffRows(t *testing.T) {
	r, cases := &Report{}, tinyDiffCases()
	var last, total int
	if err := diffRows(t.Context(), r, cases, 2, func(done, of int) { last, total = done, of }); err != nil {
		t.Fatal(err)
	}
	if last != total || total != 2*len(cases) {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	names := map[string]bool{}
	for _, row := range r.Results {
		if names[row.Name] {
			t.Errorf("two rows %q", row.Name)
		}
		names[row.Name] = true
		if row.Unit != "GB/s" || row.PeerName == "" || !(row.Ours > 0) || !(row.Peer > 0) || row.Runs != 2 {
			t.Errorf("row %+v", row)
		}
	}
	for _, k := range diff.Available() {
		if !names["hash by "+k.String()+", a"] {
			t.Errorf("no hash by %s in %v", k, names)
		}
	}
	for _, name := range []string{
		"mask, a", "mask, b", "mask, c", "update, a", "zero check, c", "update, scattered, c", "update in batches, scattered, c",
		"hash in batches, scattered, c", "update, 1 line a page changed, c", "gather of random halves, a", "scatter of random halves, a",
	} {
		if !names[name] {
			t.Errorf("no row %q", name)
		}
	}
}

// TestDiffChanged: what is measured has changed, and is done: the twins follow.
func TestDiffChanged(t *testing.T) {
	b := newDiffBench(diffSize{"a", 4, 1})
	c := b.changed("every line", func() uint64 { return ^uint64(0) })
	for name, pass := range map[string]func(){"ours": c.ours, "peer": c.peer} {
		c.before()
		for i, page := range b.pages {
			if mask := diff.Mask(page, b.twins[i]); mask != ^uint64(0) {
				t.Errorf("before %s: mask %#x of page %d", name, mask, i)
			}
		}
		if pass(); !bytes.Equal(b.page, b.twin) {
			t.Errorf("after %s the twins differ", name)
		}
	}
}

func TestDiffCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &Report{}
	err := diffRows(ctx, r, tinyDiffCases(), 3, func(done, _ int) {
		if done == 4 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(r.Results) != 1 {
		t.Errorf("%d rows, %v", len(r.Results), err)
	}
}

// TestDiffHost: the report of a benchmark that needs no KVM.
func TestDiffHost(t *testing.T) {
	r, err := reportOn("diff", "absent")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.add("row", "GB/s", "peer", []float64{1}, []float64{2})
	if err := r.Print(&out); err != nil || !strings.HasPrefix(out.String(), "diff on absent KVM, ") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
