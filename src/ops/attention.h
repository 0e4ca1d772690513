/* Attributes of the attention family, shared by the rules and every backend. */
#ifndef OPS_ATTENTION_H
#define OPS_ATTENTION_H

enum { ATTENTION_HEADS, ATTENTION_KV_HEADS, ATTENTION_HEAD_WIDTH, ATTENTION_CAUSAL, ATTENTION_MEMORY };
enum { ROTARY_HEADS, ROTARY_HEAD_WIDTH, ROTARY_DIRECTION };

#endif
