package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
)

// Page is what every list takes.
type Page struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"500" doc:"most items on a page"`
	Cursor string `query:"cursor" maxLength:"200" doc:"next_cursor of the page before"`
}

// A cursor is the last id of a page behind a hash of what was listed, so that
// it cannot be carried over to another list.
const filterHash = 8

func cursor(list string, filter any, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(hashFilter(list, filter), last...))
}

// after returns the id that the page begins after.
func (p Page) after(list string, filter any) (string, error) {
	if p.Cursor == "" {
		return "", nil
	}
	bad := &ledger.FieldError{Field: "cursor", Problem: "is not the next_cursor of this list"}
	b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != p.Cursor || len(b) <= filterHash || string(b[:filterHash]) != string(hashFilter(list, filter)) {
		return "", bad
	}
	last := string(b[filterHash:])
	switch list {
	case "accounts":
		_, err = events.ParseAccountID(last)
	case "sessions":
		_, err = events.ParseSessionID(last)
	default:
		_, err = events.ParseTokenID(last)
	}
	if err != nil {
		return "", bad
	}
	return last, nil
}

// callersOwn is the filter of a list that is another for each account: its
// cursors are not good for anybody else.
func callersOwn(c ledger.Caller, filter any) any { return []any{c.Account, filter} }

func hashFilter(list string, filter any) []byte {
	b, err := json.Marshal([]any{list, filter})
	if err != nil {
		panic(err) // filters are plain values
	}
	sum := sha256.Sum256(b)
	return sum[:filterHash]
}

// etag prints a version as an entity tag (RFC 9110 section 8.8.3).
func etag(v events.Position) string { return `"` + strconv.FormatUint(uint64(v), 10) + `"` }

// parseETag reads an If-Match header: one strong entity tag, or * for any.
func parseETag(s string) (ledger.Precondition, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "*" {
		return 0, nil
	}
	bad := &ledger.FieldError{Field: "If-Match", Problem: `is one ETag as it was received, as in "42", or *`}
	v, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 64)
	if err != nil || v == 0 || s != etag(events.Position(v)) {
		return 0, bad // there is one spelling
	}
	return ledger.Precondition(v), nil
}
