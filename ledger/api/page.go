package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/authz"
)

// Page selects a page of a list.
type Page struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"500" doc:"maximum number of items on a page"`
	Cursor string `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page"`
}

// maxPageBytes is how much of a list one page holds. An item more goes on the next
// page, whatever the limit. Each item may have [events.MaxScopes] scopes.
const maxPageBytes = 4 << 20

// fitting returns how many items go on a page, at least one. size is about the
// bytes of an item.
func fitting[T any](items []T, size func(T) int) int {
	total := 0
	for i, item := range items {
		if total += size(item); i > 0 && total > maxPageBytes {
			return i
		}
	}
	return len(items)
}

// textBytes is about how many bytes a list of scopes takes in an answer.
func textBytes(lists ...[]events.Scope) (n int) {
	for _, list := range lists {
		for _, s := range list {
			n += len(s.Permission) + len(s.Type) + len(s.ID) + len(`":/",`)
		}
	}
	return n
}

// filterHash is the length in bytes of the hash in a cursor. A cursor is a hash of
// the list's filter, followed by the last id of a page, so that it is not valid for
// another list.
const filterHash = 8

func encodeCursor(list string, filter any, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(hashFilter(list, filter), last...))
}

// decodeCursor returns the id that the page begins after, empty for the first
// page.
func (p Page) decodeCursor(list string, filter any) (string, error) {
	if p.Cursor == "" {
		return "", nil
	}
	bad := &ledger.FieldError{Field: "cursor", Problem: "not a next_cursor of this list; start again without a cursor"}
	b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != p.Cursor ||
		len(b) <= filterHash || string(b[:filterHash]) != string(hashFilter(list, filter)) {
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

// perCaller is the filter of a list that differs by caller. Its cursors are not
// valid for another account.
func perCaller(c authz.Principal, filter any) any { return []any{c.Account, filter} }

func hashFilter(list string, filter any) []byte {
	b, err := json.Marshal([]any{list, filter})
	if err != nil {
		panic(err) // filters are plain values
	}
	sum := sha256.Sum256(b)
	return sum[:filterHash]
}

// etag formats a version as an entity tag (RFC 9110 section 8.8.3).
func etag(v events.Position) string { return `"` + strconv.FormatUint(uint64(v), 10) + `"` }

// parseIfMatch parses an If-Match header: one strong entity tag, or * for any. It
// returns 0 for any version.
func parseIfMatch(s string) (ledger.Precondition, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "*" {
		return 0, nil
	}
	bad := &ledger.FieldError{
		Field:   "If-Match",
		Problem: `not an ETag; send the ETag of the version you read, such as "42", or *`,
	}
	v, err := strconv.ParseUint(strings.Trim(s, `"`), 10, 64)
	if err != nil || v == 0 || s != etag(events.Position(v)) {
		return 0, bad // each version has one spelling
	}
	return ledger.Precondition(v), nil
}
