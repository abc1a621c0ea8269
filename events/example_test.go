package events_test

import (
	"fmt"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

func ExampleParseScope() {
	view, err := events.ParseScope("view:site/3")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(view.Permission, view.Type, view.ID)

	_, err = events.ParseScope("view:site/3*")
	fmt.Println(err)
	// Output:
	// view site 3
	// bad scope "view:site/3*": an id is up to 64 letters, digits, '-', '_' or '.', or '*' alone for all
}

func ExampleModel_Covers() {
	have := events.MustScope("write:site/*")
	for _, need := range []string{"view:site/3", "write:site/*", "admin:site/3", "superuser"} {
		fmt.Println(need, events.Matomo.Covers(have, events.MustScope(need)))
	}
	// Output:
	// view:site/3 true
	// write:site/* true
	// admin:site/3 false
	// superuser false
}

// A token may do only what both its scopes and its account's grants allow.
func ExampleModel_Intersect() {
	token := []events.Scope{events.MustScope("admin:site/1"), events.MustScope("view:site/2")}
	owner := []events.Scope{events.MustScope("write:site/*")}
	fmt.Println(events.Matomo.Intersect(token, owner))
	// Output: [view:site/2 write:site/1]
}

func ExampleEncode() {
	e := &events.Event{
		ID:     "evt_01k5y8z3v0c6q2h4m7n9p1r3t5",
		Epoch:  "01k5y8z3v00000000000000001",
		Time:   time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC),
		About:  "tok_01k5y8z3v0a1b2c3d4e5f6g7h8",
		Actor:  events.Actor{Account: "acc_01k5y8z3v00123456789abcdef"},
		Change: &events.TokenRevoked{Reason: "lost phone"},
	}
	b, err := events.Encode(e)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Subject())
	fmt.Printf("%s\n", b)
	// Output:
	// ledger.token.h8.revoked
	// {"specversion":"1.0","id":"evt_01k5y8z3v0c6q2h4m7n9p1r3t5","source":"/tokenledger/01k5y8z3v00000000000000001","type":"tokenledger.token.revoked.v1","time":"2026-03-04T05:06:07Z","subject":"tok_01k5y8z3v0a1b2c3d4e5f6g7h8","datacontenttype":"application/json","data":{"actor":{"account":"acc_01k5y8z3v00123456789abcdef"},"change":{"reason":"lost phone"}}}
}

func ExampleDecode() {
	_, err := events.Decode([]byte(`{"specversion":"1.0","type":"tokenledger.token.frozen.v7"}`))
	fmt.Println(err) // the reader stops: the event may be a revocation
	// Output: event of kind "tokenledger.token.frozen.v7": unknown; a newer version is needed
}

func ExampleFormat_DigestOf() {
	_, ok := events.DefaultFormat.DigestOf("tlu_7Gk2pQ9sXw4Zr1Bt6Vn8Yc3Md5Hf0Lja2ggmXU")
	fmt.Println(ok)
	_, ok = events.DefaultFormat.DigestOf("tlu_7Gk2pQ9sXw4Zr1Bt6Vn8Yc3Md5Hf0Ljb2ggmXU") // a typing error
	fmt.Println(ok)
	// Output:
	// true
	// false
}
