package verifier_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier"
)

// TestDescription compares the description with the types, the limits and the
// answers of the handlers.
func TestDescription(t *testing.T) {
	var d struct {
		Paths map[string]struct {
			Post struct {
				RequestBody struct {
					Content map[string]struct{ Example json.RawMessage }
				} `json:"requestBody"`
				Responses map[string]any
			}
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					MaxItems int `json:"maxItems"`
				}
				AdditionalProperties *bool `json:"additionalProperties"`
				Required             []string
			}
		}
	}
	if err := json.Unmarshal(verifier.Description, &d); err != nil {
		t.Fatal(err)
	}
	for name, typ := range map[string]any{
		"Check": verifier.CheckRequest{}, "Answer": verifier.CheckAnswer{},
		"Batch": verifier.BatchRequest{}, "BatchAnswer": verifier.BatchAnswer{},
	} {
		var want []string
		for f := range reflect.TypeOf(typ).Fields() {
			field, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, field)
		}
		slices.Sort(want)
		schema := d.Components.Schemas[name]
		if got := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(got, want) {
			t.Errorf("%s is described with %v, and has %v", name, got, want)
		}
		if closed := schema.AdditionalProperties != nil && !*schema.AdditionalProperties; closed != !strings.Contains(name, "Answer") {
			t.Errorf("%s takes other fields: %t", name, !closed)
		}
	}
	if got := d.Components.Schemas["Check"].Properties["need"].MaxItems; got != events.MaxNeed {
		t.Errorf("a check needs %d scopes at most, and the limit is %d", got, events.MaxNeed)
	}
	if got := d.Components.Schemas["Batch"].Properties["checks"].MaxItems; got != verifier.MaxBatch {
		t.Errorf("a batch has %d checks at most, and the limit is %d", got, verifier.MaxBatch)
	}

	desk := newHTTPFixture(t)
	for path, h := range map[string]http.Handler{"/v1/verify": desk.Verifier.Handler(), "/v1/verify/batch": desk.Verifier.BatchHandler()} {
		op := d.Paths[path].Post
		for _, body := range []string{string(op.RequestBody.Content["application/json"].Example), `{"no":1}`, `{"need":["x y"],"checks":[]}`, ""} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if op.Responses[http.StatusText(w.Code)] == nil && op.Responses[jsonNumber(w.Code)] == nil {
				t.Errorf("%s with %s: status %d is not described", path, body, w.Code)
			}
			if strings.Contains(body, "tlu_") && w.Code != 200 {
				t.Errorf("%s: the example is answered with %d: %s", path, w.Code, w.Body)
			}
		}
	}
}

func jsonNumber(n int) string { return encode(n) }
