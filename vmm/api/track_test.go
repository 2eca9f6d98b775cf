package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// fakeWatch is told by the test what was written, and when it is over.
type fakeWatch struct {
	next   chan any // a TrackWindow or an error
	closed chan struct{}
}

func newFakeWatch() *fakeWatch {
	return &fakeWatch{next: make(chan any, 1), closed: make(chan struct{})}
}

func (w *fakeWatch) Next(ctx context.Context) (TrackWindow, error) {
	select {
	case v := <-w.next:
		if err, ok := v.(error); ok {
			return TrackWindow{}, err
		}
		return v.(TrackWindow), nil
	case <-ctx.Done():
		return TrackWindow{}, TrackEnded
	}
}

func (w *fakeWatch) Close() error {
	close(w.closed)
	return nil
}

// tracking serves a machine whose clients all get what watch returns.
func tracking(t *testing.T, watch func(TrackRequest) (LineWatch, error)) (*Client, *Server) {
	t.Helper()
	f, s := started(t)
	f.onTrack = watch
	return serve(t, s)
}

func TestTrackStream(t *testing.T) {
	w := newFakeWatch()
	asked := make(chan TrackRequest, 1)
	c, _ := tracking(t, func(r TrackRequest) (LineWatch, error) {
		asked <- r
		return w, nil
	})
	four, changed := 4.0, uint64(160)
	windows := []TrackWindow{
		{Window: 0, LengthMS: 1000.5, InexactPages: 2, HarvestMS: 0.25},
		{
			Window: 1, StartMS: 1000.5, LengthMS: 1000, Pages: 1, Lines: 16, Pages2M: 1, Amplification4K: &four, ChangedBytes: &changed,
			Detail: &TrackDetail{
				Ranges: []TrackRange{{1 << 40, 1 << 21}}, BucketBytes: 512, Buckets: []uint32{0, 7},
				TopPages: []TrackPage{{GPA: 1 << 40, Mask: 0x8000000000000001, Lines: 2}},
			},
		},
	}
	w.next <- windows[0]
	var got []TrackWindow
	for ev, err := range c.Track(t.Context(), TrackRequest{Windows: 2, Ranges: []TrackRange{{1 << 40, 64}}, Detail: true}) {
		switch {
		case err != nil:
			t.Fatal(err)
		case ev.Final:
			if ev.Ended != TrackDone || ev.TrackWindow != nil {
				t.Errorf("the end: %+v", ev)
			}
		default:
			if got = append(got, *ev.TrackWindow); len(got) == 1 {
				w.next <- windows[1]
			}
		}
	}
	if !reflect.DeepEqual(got, windows) {
		t.Errorf("got %+v, want %+v", got, windows)
	}
	want := TrackRequest{Ranges: []TrackRange{{1 << 40, 64}}, WindowMS: 1000, Windows: 2, Mode: TrackDiff, Detail: true}
	if r := <-asked; !reflect.DeepEqual(r, want) {
		t.Errorf("the controller was asked %+v", r)
	}
	<-w.closed
}

// The form of a line: what was not written has no amplification, what was not asked for is not there.
func TestTrackLine(t *testing.T) {
	line, err := json.Marshal(TrackEvent{TrackWindow: &TrackWindow{Window: 3}})
	want := `{"final":false,"window":3,"start_ms":0,"length_ms":0,"pages":0,"lines":0,"pages_2m":0,` +
		`"amplification_4k":null,"amplification_2m":null,"inexact_pages":0,"harvest_ms":0}`
	if err != nil || string(line) != want {
		t.Errorf("%s, %v; want %s", line, err, want)
	}
	line, err = json.Marshal(TrackEvent{Final: true, Ended: TrackMoved})
	if want := `{"final":true,"ended":"moved"}`; err != nil || string(line) != want {
		t.Errorf("%s, %v; want %s", line, err, want)
	}
	line, err = json.Marshal(TrackPage{GPA: 4096, Mask: 5, Lines: 2})
	if want := `{"gpa":4096,"mask":"0000000000000005","lines":2}`; err != nil || string(line) != want {
		t.Errorf("%s, %v; want %s", line, err, want)
	}
}

func TestTrackEnds(t *testing.T) {
	for _, c := range []struct {
		err   error
		end   TrackEnd
		fault string
	}{
		{TrackMoved, TrackMoved, ""},
		{TrackEnded, TrackEnded, ""},
		{errFake, TrackFailed, errFake.Error()},
	} {
		w := newFakeWatch()
		client, _ := tracking(t, func(TrackRequest) (LineWatch, error) { return w, nil })
		w.next <- c.err
		var last TrackEvent
		for ev, err := range client.Track(t.Context(), TrackRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			last = ev
		}
		if !last.Final || last.Ended != c.end || last.Fault != c.fault {
			t.Errorf("%v: %+v", c.err, last)
		}
		<-w.closed
	}
}

// A client that leaves, and a server that shuts down, end the tracking.
func TestTrackEndsWithItsClientAndWithTheServer(t *testing.T) {
	watches := make(chan *fakeWatch, 2)
	c, server := tracking(t, func(TrackRequest) (LineWatch, error) {
		w := newFakeWatch()
		w.next <- TrackWindow{}
		watches <- w
		return w, nil
	})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	var last error
	for _, err := range c.Track(ctx, TrackRequest{}) {
		hangUp()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the client hung up and got %v", last)
	}
	<-(<-watches).closed
	var end TrackEvent
	for ev, err := range c.Track(t.Context(), TrackRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		if end = ev; !ev.Final {
			go func() { _ = server.Shutdown(context.Background()) }() // serve's cleanup checks its result
		}
	}
	if end.Ended != TrackEnded {
		t.Errorf("the server shut down and the stream ended with %+v", end)
	}
	<-(<-watches).closed
}

// Several may watch, with a limit; who leaves makes room.
func TestTracksAreLimited(t *testing.T) {
	watches := make(chan *fakeWatch, maxTracks+1)
	c, _ := tracking(t, func(TrackRequest) (LineWatch, error) {
		w := newFakeWatch()
		watches <- w
		return w, nil
	})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	for range maxTracks {
		go func() {
			for range c.Track(ctx, TrackRequest{}) { // until it is hung up
			}
		}()
	}
	var first *fakeWatch
	for range maxTracks {
		first = <-watches
	}
	for _, err := range c.Track(t.Context(), TrackRequest{}) {
		if err == nil || !strings.Contains(err.Error(), "8 clients track lines already") {
			t.Fatalf("one too many: %v", err)
		}
	}
	first.next <- TrackEnded
	<-first.closed
	// Its place is free once its handler has returned, just after Close.
	go func() { (<-watches).next <- TrackEnded }() // of the one who is not refused
	for refused := true; refused; {
		for ev, err := range c.Track(t.Context(), TrackRequest{}) {
			refused = err != nil
			if !refused && ev.Ended != TrackEnded {
				t.Errorf("in the place that became free: %+v", ev)
			}
		}
	}
}

// A client that never reads is cut off by the write deadline; nothing waits for it but its own goroutine.
func TestTrackOfWhoDoesNotRead(t *testing.T) {
	w := newFakeWatch()
	f, s := started(t)
	f.onTrack = func(TrackRequest) (LineWatch, error) { return w, nil }
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(s, quietConfig())
	server.lineTimeout = time.Millisecond
	startServing(t, server, l)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST "+pathTrack+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	large := TrackWindow{Detail: &TrackDetail{Buckets: make([]uint32, 1<<20)}}
	for range 2 { // more than the socket's buffers hold
		select {
		case w.next <- large:
		case <-w.closed:
		}
	}
	if _, err := NewClient(path).Info(t.Context()); err != nil {
		t.Error(err)
	}
	<-w.closed
}

func TestTrackRefusals(t *testing.T) {
	for _, c := range []struct{ method, body, want string }{
		{"GET", "", "does not serve"},
		{"PUT", "{}", "does not serve"},
		{"POST", "", "the body is empty"},
		{"POST", `{"ranges":{}}`, "no field takes an object"},
		{"POST", `{"ranges":[[]]}`, "no list holds a list"},
		{"POST", `{"ranges":[{"base":0,"base":64,"size_bytes":64}]}`, "given twice"},
		{"POST", `{"ranges":[{"base":0,"size_bytes":{}}]}`, "no field takes an object"},
		{"POST", `{"ranges":[{"base":0,"end":64}]}`, "unknown field"},
		{"POST", `{"ranges":[{"base":0,"size_bytes":64}`, "the body is not the JSON expected"},
		{"POST", `{"ranges":[{"base":0,"size_bytes":0}]}`, "ranges[0] has base 0x0 and size_bytes 0x0: give whole lines"},
		{"POST", `{"ranges":[{"base":0,"size_bytes":64},{"base":32,"size_bytes":64}]}`, "ranges[1] has base 0x20"},
		{"POST", `{"ranges":[{"base":18446744073709551552,"size_bytes":128}]}`, "give whole lines"},
		{"POST", `{"ranges":[{"base":-64,"size_bytes":64}]}`, "base"},
		{"POST", `{"window_ms":9}`, "window_ms is 9: choose 10 to 3600000"},
		{"POST", `{"window_ms":3600001}`, "choose 10 to 3600000"},
		{"POST", `{"windows":-1}`, "windows is -1"},
		{"POST", `{"mode":"Diff"}`, "choose one of diff, stores, homed"},
		{"POST", `{"mode":"stores"}`, "mode stores needs ranges"},
		{"POST", `{"mode":"homed","count_bytes":true,"ranges":[{"base":0,"size_bytes":64}]}`, "count_bytes needs mode diff"},
		{"POST", `{}`, "no machine has been started"},
	} {
		_, s := newFake(t, false)
		status, reply := call(t, NewServer(s, quietConfig()).Handler(), c.method, pathTrack, c.body)
		var f faultBody
		_ = json.Unmarshal([]byte(reply), &f)
		if status != http.StatusBadRequest || !strings.Contains(f.FaultMessage, c.want) {
			t.Errorf("%s %s: %d %s; want 400 with %q", c.method, c.body, status, reply, c.want)
		}
	}
}
