"""The commands of main.py. Most are the file of their option's name: dry, seeds, predict, compare, reproduce; and

-net and -resume              train.py
-test                         evaluate.py
-export onnx                  export.py, with -int8 quantize.py, with -half half.py
-export pt2                   program.py
-export weights               publish.py
-export card                  card.py
-list, -version, -completion  listing.py, which also has the names in -h

asked.py knows which options go together. The others are what commands share: finished_runs.py reads runs,
result_rows.py, result_tables.py and result_plots.py are parts of -reproduce, same_outputs.py and file_errors.py
measure exported files.
"""
