package bearer_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/events/bearer"
)

func TestSecret(t *testing.T) {
	tests := []struct {
		values []string
		secret string
		found  bool
	}{
		{nil, "", false},
		{[]string{"Bearer x"}, "x", true},
		{[]string{"bEARER x"}, "x", true},
		{[]string{"Bearer  x"}, "x", true},
		{[]string{"Bearer       x"}, "x", true},
		{[]string{"Bearer x y"}, "x y", true},
		{[]string{"Bearer x, Bearer x"}, "x, Bearer x", true},
		{[]string{"Bearer"}, "", true},
		{[]string{"Bearer "}, "", true},
		{[]string{"Bearer\tx"}, "\tx", true},
		{[]string{"Bearer \tx"}, "\tx", true},
		{[]string{""}, "", false},
		{[]string{"Basic x"}, "", false},
		{[]string{"Basic Bearer x"}, "", false},
		{[]string{"Bearerx"}, "", false},
		{[]string{" Bearer x"}, "", false}, // net/http removes such spaces
		{[]string{"Bearer x", "Bearer x"}, "", true},
		{[]string{"Basic x", "Bearer x"}, "", true},
		{[]string{"Basic x", "Basic x"}, "", true},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.values != nil {
			h["Authorization"] = slices.Clone(tt.values)
		}
		if secret, found := bearer.Secret(h); secret != tt.secret || found != tt.found {
			t.Errorf("Secret(%q) = %q, %t; want %q, %t", tt.values, secret, found, tt.secret, tt.found)
		}
	}
}
