package api

import (
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// object is a JSON object.
type object = map[string]any

// examples are the bodies that the description shows, by operation. A test sends
// each of them.
var examples = map[string]any{
	"create-account": object{
		"login": "shop", "kind": "service", "owner": "anna", "grants": []string{"view:site/3", "track:site/3"},
	},
	"edit-account":   object{"owner": "anna", "self_service": true},
	"erase-account":  object{"service_accounts": "suspend", "dry_run": true},
	"grant":          object{"grants": []string{"admin:site/3", "view:site/*"}},
	"invite":         object{"reset_second_factor": false},
	"resume-account": object{}, "suspend-account": object{"reason": "contract ended"},
	"can-i":           object{"verb": "create token", "account": "shop", "scopes": []string{"view:site/3"}},
	"set-password":    object{"invitation": "tli_…", "password": "a long sentence that nobody guesses"},
	"change-password": object{"old": "a long sentence that nobody guesses", "new": "another sentence that nobody guesses"},
	"set-policy": object{
		"token_issuers": "all", "max_lifetime": "365d", "default_lifetime": "90d", "max_grace": "30d",
	},
	"revoke-tokens": object{"account": "shop", "app": "report", "reason": "laptop stolen", "dry_run": true},
	"import-tokens": object{"source": "matomo", "dry_run": true, "tokens": []object{{
		"account": "acc_01jd3qk8z5n0v7m2x4c6b8a9ef", "hash": strings.Repeat("0123456789abcdef", 8), "app": "cron job",
	}}},
	"add-second-factor": object{}, "confirm-second-factor": object{"code": "123456"},
	"renew-recovery-codes": object{"code": "123456"}, "remove-second-factor": object{"code": "123456"},
	"sign-in":        object{"login": "anna", "password": "a long sentence that nobody guesses", "code": "123456"},
	"reauthenticate": object{"password": "a long sentence that nobody guesses"},
	"end-sessions":   object{"account": "anna"},
	"create-token": object{
		"account": "shop", "app": "report", "device": "server-1", "scopes": []string{"view:site/3"}, "expires_in": "90d",
		"constraints": object{"cidrs": []string{"192.0.2.0/24"}, "methods": []string{"GET"}, "header_only": true},
	},
	"edit-token":   object{"scopes": []string{"view:site/3"}, "expires_in": "90d"},
	"resume-token": object{}, "revoke-token": object{"reason": "laptop stolen"},
	"rotate-token": object{"grace": "1h"}, "suspend-token": object{"reason": "laptop lost"},
}

// describeExamples gives each operation with a body its example.
func describeExamples(d *huma.OpenAPI) {
	for _, item := range d.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			if example, ok := examples[op.OperationID]; ok {
				op.RequestBody.Content["application/json"].Example = example
			}
		}
	}
}
