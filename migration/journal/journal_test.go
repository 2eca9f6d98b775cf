package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func record(phase Phase) Record {
	return Record{MachineID: "m", Generation: 1, Side: Source, Phase: phase}
}

func phases(records []Record) []Phase {
	var out []Phase
	for _, r := range records {
		out = append(out, r.Phase)
	}
	return out
}

func TestAppendAndReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for i, phase := range []Phase{Preflight, Precopy, Paused} {
		j, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(j.Records("m", 1)); got != i {
			t.Errorf("opening %d found %d records", i, got)
		}
		if err := j.Append(record(phase)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	records, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Phase{Preflight, Precopy, Paused}; !slices.Equal(phases(records), want) {
		t.Errorf("phases %v, want %v", phases(records), want)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if other, err := Open(path); err == nil {
		other.Close()
		t.Error("two owners of one journal")
	}
}

// TestTornTail cuts the file at every byte: a reader sees the records that were whole, and the next
// owner continues behind them.
func TestTornTail(t *testing.T) {
	first, err := encode(record(Preflight))
	if err != nil {
		t.Fatal(err)
	}
	second, err := encode(record(Precopy))
	if err != nil {
		t.Fatal(err)
	}
	whole := slices.Concat(first, second)
	path := filepath.Join(t.TempDir(), "journal")
	for size := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		var want []Phase
		if size >= len(first) {
			want = append(want, Preflight)
		}
		if size == len(whole) {
			want = append(want, Precopy)
		}
		j, err := Open(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		if got := phases(j.Records("m", 1)); !slices.Equal(got, want) {
			t.Errorf("cut at %d: %v, want %v", size, got, want)
		}
		err = errors.Join(j.Append(record(Done)), j.Close())
		if err != nil {
			t.Fatal(err)
		}
		records, err := ReadFile(path)
		if err != nil || !slices.Equal(phases(records), append(want, Done)) {
			t.Errorf("cut at %d, then appended: %v, %v", size, phases(records), err)
		}
	}
}

func TestCorruptMiddle(t *testing.T) {
	var data []byte
	for _, phase := range []Phase{Preflight, Precopy, Paused} {
		text, err := encode(record(phase))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, text...)
	}
	changed := bytes.Replace(data, []byte("precopy"), []byte("preCopy"), 1)
	if _, _, err := Decode(changed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Decode: %v, want ErrCorrupt", err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := Open(path); !errors.Is(err, ErrCorrupt) {
		j.Close()
		t.Errorf("Open: %v, want ErrCorrupt", err)
	}
}

func TestReadFileRefuses(t *testing.T) {
	for _, path := range []string{"relative", "/dev/zero", t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := ReadFile(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func TestGenerations(t *testing.T) {
	j := New("/j", &faultySink{}, []Record{
		{MachineID: "a", Generation: 2}, {MachineID: "a", Generation: 5}, {MachineID: "b", Generation: 9},
	})
	if got := j.LastGeneration("a"); got != 5 {
		t.Errorf("last generation of a is %d", got)
	}
	if got := j.LastGeneration("c"); got != 0 {
		t.Errorf("last generation of c is %d", got)
	}
	if got := len(j.Records("a", 5)); got != 1 {
		t.Errorf("%d records of a/5", got)
	}
}

// TestFailedWrite: what a full disk left of a record is gone before the next one is there.
func TestFailedWrite(t *testing.T) {
	sink := &faultySink{}
	j := New("/j", sink, nil)
	if err := j.Append(record(Preflight)); err != nil {
		t.Fatal(err)
	}
	sink.fail = true
	for range 2 {
		if err := j.Append(record(Precopy)); !errors.Is(err, errFull) {
			t.Fatalf("a failed write: %v", err)
		}
		checkSink(t, sink, Preflight)
	}
	sink.fail, sink.steps = false, nil
	if err := j.Append(record(Failed)); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if want := []string{"truncate", "sync", "write", "sync"}; !slices.Equal(sink.steps, want) {
		t.Errorf("steps %v, want %v", sink.steps, want)
	}
	checkSink(t, sink, Preflight, Failed)
	if got := phases(j.Records("m", 1)); !slices.Equal(got, []Phase{Preflight, Failed}) {
		t.Errorf("the journal knows %v", got)
	}
}

// TestTornStays: nothing is put behind a part of a record that could not be dropped, not even later.
func TestTornStays(t *testing.T) {
	for name, spoil := range map[string]func(s *faultySink, cause error){
		"truncate": func(s *faultySink, cause error) { s.truncateErr = cause },
		"sync":     func(s *faultySink, cause error) { s.syncErr = cause },
	} {
		sink, cause := &faultySink{}, errors.New("medium error")
		j := New("/j", sink, nil)
		if err := j.Append(record(Preflight)); err != nil {
			t.Fatal(err)
		}
		sink.fail = true
		if err := j.Append(record(Precopy)); err == nil {
			t.Fatal("a failed write was accepted")
		}
		sink.fail = false
		spoil(sink, cause)
		for range 2 {
			if err := j.Append(record(Paused)); !errors.Is(err, cause) || !strings.Contains(err.Error(), "--journal") {
				t.Errorf("%s failed: %v", name, err)
			}
			spoil(sink, nil)
		}
		checkSink(t, sink, Preflight)
	}
}

// TestFullDisk: the file of a process goes on behind its last whole record, and its next owner reads that.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for i, phase := range []Phase{Preflight, Precopy} {
		j, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		whole := j.sink
		j.sink = &halfSink{whole}
		if err := j.Append(record(Paused)); !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		if records, err := ReadFile(path); err != nil || len(records) != i {
			t.Errorf("with a torn record a reader sees %v, %v", phases(records), err)
		}
		j.sink = whole
		if err := errors.Join(j.Append(record(phase)), j.Close()); err != nil {
			t.Fatal(err)
		}
	}
	records, err := ReadFile(path)
	if err != nil || !slices.Equal(phases(records), []Phase{Preflight, Precopy}) {
		t.Errorf("%v, %v", phases(records), err)
	}
}

func checkSink(t *testing.T, sink *faultySink, want ...Phase) {
	t.Helper()
	records, _, err := Decode(sink.Bytes())
	if err != nil || !slices.Equal(phases(records), want) {
		t.Errorf("the sink holds %v, %v; want %v", phases(records), err, want)
	}
}

var errFull = errors.New("disk full")

// halfSink has room for half of what is written.
type halfSink struct{ Sink }

func (s *halfSink) Write(p []byte) (int, error) {
	n, _ := s.Sink.Write(p[:len(p)/2])
	return n, errFull
}

// faultySink keeps half of a failed write, as a full disk does.
type faultySink struct {
	bytes.Buffer
	fail                 bool
	syncErr, truncateErr error
	steps                []string
}

func (f *faultySink) Write(p []byte) (int, error) {
	f.steps = append(f.steps, "write")
	if f.fail {
		n, _ := f.Buffer.Write(p[:len(p)/2])
		return n, errFull
	}
	return f.Buffer.Write(p)
}

func (f *faultySink) Truncate(sizeBytes int64) error {
	f.steps = append(f.steps, "truncate")
	if f.truncateErr == nil {
		f.Buffer.Truncate(int(sizeBytes))
	}
	return f.truncateErr
}

func (f *faultySink) Sync() error {
	f.steps = append(f.steps, "sync")
	return f.syncErr
}

func (f *faultySink) Close() error { return nil }

func TestFailedSync(t *testing.T) {
	cause := errors.New("medium error")
	j := New("/j", &faultySink{syncErr: cause}, nil)
	if err := j.Append(record(Owner)); !errors.Is(err, cause) {
		t.Errorf("%v, want the cause", err)
	}
}

func FuzzDecode(f *testing.F) {
	text, err := encode(record(Preflight))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil))
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, valid, err := Decode(data)
		if err != nil {
			return
		}
		if valid > len(data) {
			t.Fatalf("%d valid bytes of %d", valid, len(data))
		}
		again, validAgain, err := Decode(data[:valid])
		if err != nil || validAgain != valid || len(again) != len(records) {
			t.Fatalf("the valid part decodes otherwise: %d of %d records, %v", len(again), len(records), err)
		}
	})
}

// TestNotAJournal: a file that the user named by mistake is left as it is.
func TestNotAJournal(t *testing.T) {
	text, err := encode(record(Preflight))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"lines":             "buy milk\nbuy bread\n",
		"one line":          "buy milk\n",
		"no newline":        "buy milk",
		"other JSON":        "{}\n",
		"zeros":             "\x00\x00\x00",
		"two bad lines":     string(text) + "buy milk\nbuy bread",
		"a long bad line":   string(text) + strings.Repeat("x", maxLineBytes+1),
		"torn, then others": string(text[:20]) + "\n" + string(text),
	} {
		path := filepath.Join(t.TempDir(), "notes.txt")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := Open(path); !errors.Is(err, ErrCorrupt) {
			_ = j.Close()
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		if left, err := os.ReadFile(path); err != nil || string(left) != content {
			t.Errorf("%s: the file is %q now, %v", name, left, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(t.TempDir(), "target"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, t.TempDir()} {
		if j, err := Open(path); err == nil {
			j.Close()
			t.Errorf("%s was opened", path)
		}
	}
}

func TestCreate(t *testing.T) {
	folder := t.TempDir()
	first, err := Create(folder)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Create(folder)
	if err != nil {
		t.Fatal(err)
	}
	if first.Path() == second.Path() {
		t.Errorf("two journals at %s", first.Path())
	}
	for _, j := range []*Journal{first, second} {
		if err := errors.Join(j.Remove(), j.Close()); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestNeeded: a journal may go once no peer can ask for what it says.
func TestNeeded(t *testing.T) {
	for _, c := range []struct {
		phases []Phase
		needed bool // unless settled
	}{
		{nil, false},
		{[]Phase{Preflight, Precopy, Cancelled}, false},
		{[]Phase{Preflight, Precopy, Paused, Failed}, true},
		{[]Phase{Preflight, Precopy, Paused, StateSent, CommitSent}, true},
		{[]Phase{Preflight, Precopy, Paused, StateSent, CommitSent, Done}, true},
		{[]Phase{Accepted, Receiving, Discarded}, false},
		{[]Phase{Accepted, Receiving, Ready, Discarded}, true},
		{[]Phase{Accepted, Receiving, Ready, Owner}, true},
	} {
		j := New("/j", &faultySink{}, nil)
		for _, phase := range c.phases {
			if err := j.Note(record(phase)); err != nil {
				t.Fatal(err)
			}
		}
		j.Settle("m", 2) // another one
		if j.Needed() != c.needed {
			t.Errorf("%v: needed %v", c.phases, j.Needed())
		}
		j.Settle("m", 1)
		if j.Needed() {
			t.Errorf("%v: settled and needed", c.phases)
		}
	}
}
