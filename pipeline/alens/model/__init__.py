"""The model: found, compared with its record, loaded through TransformerLens, run. The only room that imports model libraries.

libraries.py          how model libraries are called: imported fast, kept quiet, refusals in one line
model_path.py         MODEL as written -> the directory or file that holds it
gguf_file.py          a GGUF file: its hashes, and how transformers is told to read it
configuration.py      config.json -> the settings and sizes that a record keeps
weights.py            which weight files are loaded, and their hash
pretrained.py         a directory -> transformers' model, every weight from its files
bridge.py             transformers' model -> TransformerLens, and the matrices W_O and W_U
last_norm.py          the last norm, measured
behind_attention.py   what a block does to the output of its attention
output_logits.py      a factor or a cap behind the unembedding, measured
logit_fingerprint.py  the logits of a few fixed tokens
loaded_model.py       a model that was found, and one that was loaded
models.py             a name -> the loaded model
activations.py        token rows -> z and final residuals
attention.py          token rows -> where heads look
attention_sources.py  a prompt -> where heads look from some positions, and how much they move
token_values.py       tokens -> what heads take from them, from the parameters
edits.py              the model run with heads changed
edited_runs.py        the same sequences under many edits, each pass from its first edit on
partial_pass.py       the model run from a layer on, without one head in each copy of a sequence
gradient_pass.py      a forward pass that keeps what gradients by z need
examine.py            what the loaded model does, by numbers
chat_template.py      messages -> the text that a chat model was trained to see
beginning.py          what a tokenizer puts before a text
token_bytes.py        token ids -> how many bytes of text each stands for
within_text.py        a tokenizer in the middle of a text
"""
