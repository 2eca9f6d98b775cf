package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// FuzzAPI sends two requests of any shape to one server. Whatever they are, every answer has its
// form, and the fake controller (which judges the order of what reaches it) has no complaint.
func FuzzAPI(f *testing.F) {
	for path, methods := range routes {
		for method := range methods {
			f.Add(method, path, []byte(`{}`), "GET", "/", []byte{})
		}
	}
	f.Add("PUT", "/actions", []byte(`{"action_type":"InstanceStart"}`), "PATCH", "/vm", []byte(`{"state":"Paused"}`))
	f.Add("PUT", "/actions", []byte(`{"action_type":"InstanceStart"}`), "PUT", pathMigration,
		[]byte(`{"destination_url":"unix:/d","downtime_ms":5,"memory_mode":"Precopy","connections":2}`))
	f.Add("PUT", "/machine-config", []byte(`{"vcpu_count":2,"mem_size_mib":256,"smt":false}`), "PUT", "/actions", []byte(`{"action_type":"InstanceStart"}`))
	f.Add("PUT", "/boot-source", []byte(`{"kernel_image_path":"k","kernel_image_path":"l"}`), "PUT", pathStop, []byte{})
	f.Add("PATCH", "/machine-config", []byte(`{"huge_pages":"2M"}{`), "HEAD", "//vm", []byte("\xff"))
	f.Add("POST", pathTrack, []byte(`{"ranges":[{"base":0,"size_bytes":64}],"mode":"homed"}`), "POST", pathTrack, []byte(`{"windows":1}`))
	f.Fuzz(func(t *testing.T, method1, path1 string, body1 []byte, method2, path2 string, body2 []byte) {
		fake, s := newFake(t, false)
		fake.onMigrate = func(MigrationRequest) error { return s.MigrationEnded(GuestKept, "done") } // so that a stream ends
		fake.onTrack = func(TrackRequest) (LineWatch, error) { return nil, errFake }
		h := NewServer(s, quietConfig()).Handler()
		send := func(method, path string, body []byte) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, (&http.Request{
				Method: method, URL: &url.URL{Path: path}, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)),
			}).WithContext(t.Context()))
			checkForm(t, w)
		}
		send(method1, path1, body1)
		send(method2, path2, body2)
	})
}
